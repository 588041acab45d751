"""`make chaos-cluster`: faults on a cluster of three hosts in network namespaces of this machine, as root.

Exit status 1, with each violation, if a promise was broken; the data are kept then. The seed decides the classes of
faults, what they hit and for how long, and what the tenants do.
"""

import argparse
import asyncio
import json
import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path

from runtime import logs
from tests.cluster.faults import FAULTS
from tests.cluster.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a new one")
    parser.add_argument("--seconds", type=float, default=300.0, help="faults are injected for so long")
    parser.add_argument("--classes", default=",".join(FAULTS), help="separated by commas; default: all")
    parser.add_argument("--nodes", type=int, default=6)
    chosen = parser.parse_args()
    logs.configure("chaos", "error", "text")
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    home = Path(tempfile.mkdtemp(prefix="nebula-chaos-cluster-", dir="/var/tmp"))
    home.chmod(0o755)
    print(f"seed {chosen.seed}, data in {home}", flush=True)
    classes = chosen.classes.split(",")
    say = lambda line: print(line, flush=True)  # noqa: E731
    figures = asyncio.run(run(home, chosen.seed, chosen.seconds, classes, chosen.nodes, say))
    for violation in figures.violations:
        print(f"violation: {violation}")
    if figures.violations:
        print(f"the data are in {home}")
    else:
        shutil.rmtree(home)
    print(json.dumps(figures.document()))
    return 1 if figures.violations else 0


if __name__ == "__main__":
    sys.exit(main())
