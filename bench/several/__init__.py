"""Several processes of each role.

Creates accepted and placed per second with one to four handlers; a node with room for exactly so many VMs, and more
creates than that by several handlers, checked at each position of the log; and two of each role, one of which is
killed again and again under load: how long the slowest call took, until it was accepted by whoever was left.
"""

import argparse
from typing import Any

from bench.several import kills, room


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--handlers", type=int, default=4, help="most processes of handlers (4)")
    parser.add_argument("--room", type=int, default=1000, help="VMs for which the node has room (1000)")
    parser.add_argument("--creates", type=int, default=1200, help="creates for that node, and for each rate (1200)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each process is killed (3)")


async def measure(handlers: int = 4, room: int = 1000, creates: int = 1200, rounds: int = 3) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in range(1, handlers + 1):
        rates = await _room.filled(number, 2 * creates, creates)
        found |= {f"{name}_with_{number}_handlers": value for name, value in rates.figures().items()}
    filled = await _room.filled(handlers, room, creates)
    found |= {
        "room": room,
        "creates": creates,
        "placed": filled.placed,
        "most_reserved": filled.most_reserved,
        "positions": filled.positions,
    }
    return found | await kills.measure(rounds)


_room = room
