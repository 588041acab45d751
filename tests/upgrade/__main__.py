"""`make upgrade-test`: the version before and this one side by side, in several orders, under load.

documented   to this version, in the order of docs/upgrades.md
back         the same, and then back to the version before in the opposite order
any          each process, in an order that the seed decides, there and back
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter

from runtime import logs
from tests.upgrade.bed import bed
from tests.upgrade.checks import differences
from tests.upgrade.load import Client, load, some_work
from tests.upgrade.steps import ORDERS


async def run(order: str, seed: int, pause: float, people: int, nodes: int) -> dict[str, object]:
    """One upgrade: what clients saw, and what differs in the end."""
    async with bed(nodes) as made, made.client() as http:
        began = time.monotonic()
        async with load(made, people) as seen:
            async for step in ORDERS[order](made, random.Random(seed)):
                print(f"{time.monotonic() - began:6.1f} s  {step}", file=sys.stderr)
                await asyncio.sleep(pause)
                await some_work(seen)
        wrong = await differences(made, Client(made, seen, http), seen)
    return {
        "order": order,
        "seed": seed,
        "calls": seen.calls,
        "operations": len(seen.operations),
        "slowest_call_seconds": round(seen.slowest, 2),
        "again": dict(Counter(seen.again)),
        "feed_items": len(seen.fed),
        "feed_resumed": seen.resumed,
        "guest_answers": seen.asked,
        "differences": wrong,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.upgrade", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a new one")
    parser.add_argument("--orders", default=",".join(ORDERS), help="separated by commas; default: all")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two steps")
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--nodes", type=int, default=5, help="simulated nodes of each of two fleets")
    chosen = parser.parse_args()
    logs.configure("upgrade", "error", "text")
    failed = False
    for order in chosen.orders.split(","):
        found = asyncio.run(run(order, chosen.seed, chosen.pause, chosen.people, chosen.nodes))
        print(json.dumps(found))
        failed |= bool(found["differences"])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
