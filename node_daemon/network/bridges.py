"""A bridge does not learn from frames to 01:80:c2:00:00:0x, which it takes before any rule sees them."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from node_daemon.network.programs import run


async def protect(taps: Iterable[str]) -> None:
    """Let the bridges of these interfaces not learn addresses from such frames. Raises Refused."""
    bridges = set()
    for tap in taps:
        with contextlib.suppress(OSError):  # it has ended
            bridges.add(Path("/sys/class/net", tap, "master").readlink().name)
    for bridge in sorted(bridges):
        await run("ip", "link", "set", "dev", bridge, "type", "bridge", "no_linklocal_learn", "1")
