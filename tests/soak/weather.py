"""Bad weather: one process after the other is killed (SIGKILL), whatever it is doing."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

#: How the command line of each looks: a number in a file may be somebody else's by now.
MARKS = {"nats": "nats-server", "postgres": "postgres"}


async def storm(
    pids: dict[str, Callable[[], int | None]], seed: str, until: float, pause: tuple[float, float]
) -> Counter[str]:
    """Kill until that time (`time.monotonic`), with pauses in between (seconds, least and most); how often whom."""
    rng = random.Random(seed)
    kills: Counter[str] = Counter()
    while (now := time.monotonic()) < until:
        await asyncio.sleep(min(rng.uniform(*pause), until - now))
        victim = rng.choice(sorted(pids))
        with contextlib.suppress(OSError):  # it is just being started
            pid = pids[victim]()
            if pid is not None and MARKS.get(victim, "cli.") in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)
                kills[victim] += 1
    return kills
