"""The files of other projects that the console uses: npm packages, which `make setup` installs beside Python's.

Only what `SERVED` names is served. The versions are those of `package-lock.json`.
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).with_name("package-lock.json")
#: Where `make setup` installs the packages.
USUAL = Path(sys.prefix) / "console" / "node_modules"
#: How to get the packages.
COMMAND = "make setup"

#: For each package, the paths inside it that are served, as patterns.
SERVED: Mapping[str, re.Pattern[str]] = {
    "lit-html": re.compile(r"lit-html\.js|directive(s/[a-z-]+|-helpers)?\.js|async-directive\.js"),
    "@xterm/xterm": re.compile(r"lib/xterm\.mjs|css/xterm\.css"),
    "@xterm/addon-fit": re.compile(r"lib/addon-fit\.mjs"),
    "@novnc/novnc": re.compile(r"(core|vendor)/([a-z0-9-]+/)*[a-z0-9_-]+\.js"),
    "uplot": re.compile(r"dist/uPlot\.(esm\.js|min\.css)"),
}
#: The file of each package by which its installation is noticed.
PROOF: Mapping[str, str] = {
    "lit-html": "lit-html.js",
    "@xterm/xterm": "lib/xterm.mjs",
    "@xterm/addon-fit": "lib/addon-fit.mjs",
    "@novnc/novnc": "core/rfb.js",
    "uplot": "dist/uPlot.esm.js",
}
#: The modules that every page needs, which are joined with the console's own (`pack.py`).
JOINED = (
    "lit-html/lit-html.js",
    "lit-html/directive.js",
    "lit-html/directive-helpers.js",
    "lit-html/async-directive.js",
    "lit-html/directives/live.js",
    "lit-html/directives/ref.js",
    "lit-html/directives/repeat.js",
)


@dataclass(frozen=True)
class Vendor:
    """The packages in a folder `node_modules`."""

    folder: Path
    versions: Mapping[str, str]

    def missing(self) -> list[str]:
        """The packages that are not installed."""
        proofs = [
            *((name, f"{name}/{file}") for name, file in PROOF.items()),
            *((path.split("/")[0], path) for path in JOINED),
        ]
        lacking = {name for name, path in proofs if not (self.folder / path).is_file()}
        return [name for name in SERVED if name in lacking]

    def joined(self) -> dict[str, str]:
        """The texts of JOINED, by their paths in the console. Raises OSError."""
        return {f"vendor/{path}": (self.folder / path).read_text() for path in JOINED}

    def read(self, path: str) -> bytes | None:
        """A file by `<package>/<path inside it>`; None if it is not served, or not there."""
        for package, served in SERVED.items():
            inside = path.removeprefix(f"{package}/")
            if inside != path and served.fullmatch(inside):
                try:
                    return (self.folder / package / inside).read_bytes()
                except OSError:
                    return None
        return None


def installed(folder: Path | None = None) -> Vendor:
    """The packages of a folder; without one, of the usual one."""
    packages = json.loads(LOCK.read_text())["packages"]
    return Vendor(folder or USUAL, {name: packages[f"node_modules/{name}"]["version"] for name in SERVED})
