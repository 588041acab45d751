"""Writes `gateway/console/web/core/calls.js`: which reads take `min_position`, and which take `at`.

Run it after a read has changed: `.venv/bin/python -m tests.console.calls`.
"""

import re
from pathlib import Path

from gateway.console.files import WEB
from gateway.table.reads import READS

FILE: Path = WEB / "core" / "calls.js"
HEAD = """\
/** Which reads take which parameter: made of the table of all reads by `python -m tests.console.calls`. */

"""


def patterns(parameter: str) -> list[str]:
    """The paths of the reads that have a parameter, as regular expressions of JavaScript."""
    paths = sorted({read.path for read in READS if read.method == "GET" and parameter in read.parameters})
    return [re.sub(r"\{\w+\}", "[^/]+", path).replace("/", r"\/") for path in paths]


def text() -> str:
    """The file as it has to be."""
    parts = []
    for name, parameter in (("FRESH", "min_position"), ("TRAVELS", "at")):
        lines = "".join(f"  /^{pattern}$/,\n" for pattern in patterns(parameter))
        parts.append(f"/** Reads that take `{parameter}`. */\nexport const {name} = [\n{lines}];\n")
    return HEAD + "\n".join(parts)


if __name__ == "__main__":
    FILE.write_text(text())
