"""`python -m tests.chaos`: kill the log's server under its writers, and check that it kept its word.

Exit status 1, with each violation, when it did not; the server's data are kept then. The seed decides what writers
append and when the server dies; how the two meet is the machine's.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from runtime import logs
from tests.chaos.run import Figures, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a new one")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--writers", type=int, default=16)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    chosen = parser.parse_args()
    logs.configure("chaos", "warning", "text")
    home = Path(tempfile.mkdtemp(prefix="nebula-chaos-", dir="/var/tmp"))
    print(f"seed {chosen.seed}, {chosen.kills} kills, {chosen.writers} writers, data in {home}", flush=True)
    figures = asyncio.run(run(home, chosen.seed, chosen.kills, chosen.writers, lambda line: print(line, flush=True)))
    report(figures)
    if figures.violations:
        print(f"the server's data are in {home}")
    else:
        shutil.rmtree(home)
    if chosen.json:
        print(json.dumps(figures.document()))
    return 1 if figures.violations else 0


def report(figures: Figures) -> None:
    for name, value in figures.document().items():
        if name != "violations":
            print(f"  {name:<14} {value}")
    for violation in figures.violations:
        print(f"violation: {violation}")


if __name__ == "__main__":
    sys.exit(main())
