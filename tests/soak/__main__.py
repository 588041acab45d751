"""`python -m tests.soak`: random commands and random kills; then the log, the read models, the wanted documents, the
nodes' books and the hypervisors must say the same. Exit status 1, with each difference, when they do not.

The seed decides what people do and when processes die; how the two meet is the machine's.
"""

import argparse
import asyncio
import json
import random
import sys

from tests.soak.run import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a new one")
    parser.add_argument("--nodes", type=int, default=50, help="simulated nodes")
    parser.add_argument("--vms", type=int, default=20, help="VMs on each of them")
    parser.add_argument("--real", type=int, default=3, help="VMs on QEMU")
    parser.add_argument("--pause", type=float, nargs=2, default=(1.0, 6.0), help="seconds between kills", metavar="S")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    chosen = parser.parse_args()
    least, most = chosen.pause
    plan = Plan(chosen.seed, chosen.seconds, chosen.nodes, chosen.vms, chosen.real, (least, most))
    print(plan, flush=True)
    figures = asyncio.run(run(plan, lambda line: print(line, flush=True)))
    for name, value in figures.document().items():
        print(f"  {name:<20} {value}")
    for difference in figures.differences[:100]:
        print(f"difference: {difference}")
    if chosen.json:
        print(json.dumps(figures.document()))
    return 1 if figures.differences else 0


if __name__ == "__main__":
    sys.exit(main())
