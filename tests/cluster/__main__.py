"""`make chaos-cluster`: faults on a cluster of three hosts in network namespaces of this machine, as root.

With `--kills` there is one kind of fault only: a random process is killed, again and again, while three handlers work.
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
from dataclasses import replace
from functools import partial
from pathlib import Path

from runtime import logs
from tests.cluster.faults import FAULTS
from tests.cluster.kills import WITH_THREE_HANDLERS, one_each
from tests.cluster.run import Faults, Plan, in_turn, run

MOST_TENANTS = 16


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a new one")
    parser.add_argument("--seconds", type=float, default=300.0, help="faults are injected for so long")
    parser.add_argument("--classes", default=",".join(FAULTS), help="separated by commas; default: all")
    parser.add_argument("--times", type=int, default=1, help="how often at least each class is injected")
    parser.add_argument("--kills", type=float, metavar="PAUSE", help="kill a random process every so many seconds")
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--vms", type=int, help="there are at most so many, and with --kills as many at the begin")
    chosen = parser.parse_args()
    logs.configure("chaos", "error", "text")
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    home = Path(tempfile.mkdtemp(prefix="nebula-chaos-cluster-", dir="/var/tmp"))
    home.chmod(0o755)
    print(f"seed {chosen.seed}, data in {home}", flush=True)
    say = lambda line: print(line, flush=True)  # noqa: E731
    figures = asyncio.run(run(home, *planned(chosen), say))
    for violation in figures.violations:
        print(f"violation: {violation}")
    if figures.violations:
        print(f"the data are in {home}")
    else:
        shutil.rmtree(home)
    print(json.dumps(figures.document()))
    return 1 if figures.violations else 0


def planned(chosen: argparse.Namespace) -> tuple[Plan, Faults]:
    """What was asked for, as a plan and what injects the faults."""
    plan = Plan(chosen.seed, chosen.nodes)
    if chosen.vms is not None:
        tenants = max(plan.tenants, min(chosen.vms // plan.vms, MOST_TENANTS))
        plan = replace(plan, tenants=tenants, vms=-(-chosen.vms // tenants))
    if chosen.kills is None:
        return plan, partial(in_turn, chosen.classes.split(","), chosen.seed, chosen.seconds, chosen.times)
    plan = replace(plan, places=WITH_THREE_HANDLERS, full=True)
    return plan, partial(one_each, chosen.kills, chosen.seconds, chosen.seed)


if __name__ == "__main__":
    sys.exit(main())
