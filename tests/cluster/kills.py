"""A random process is killed each second: `python -m tests.cluster --kills`."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Mapping

from cli.local.cluster.cluster import PLACES
from runtime.local.child import command_line
from tests.cluster.bed import Bed
from tests.cluster.ending import Say
from tests.cluster.figures import Figures
from tests.cluster.tenants import Tally, longest_gap

#: Three handlers, and two of each other role.
WITH_THREE_HANDLERS = {**PLACES, "handlers": ["a", "b", "c"]}
POSTGRES = "postgres"


def living(made: Bed) -> Mapping[str, int]:
    """The numbers of all processes that may be killed, by name: all but the standby, which has nothing to do."""
    standby = f"{POSTGRES}-{made.cluster.pair.standby}"
    return {name: pid for name, pid in made.cluster.processes.items() if name != standby}


async def one_each(
    pause: float, seconds: float, seed: int, made: Bed, tally: Tally, figures: Figures, say: Say
) -> None:
    """Kill a random process, again and again for so long, with this pause in between (both in seconds).

    What keeps the processes starts each of them again.
    """
    chance = random.Random(f"{seed} kills")
    began = said = time.monotonic()
    number = 0
    while time.monotonic() < began + seconds:
        number += 1
        await asyncio.sleep(max(0.0, began + number * pause - time.monotonic()))
        name, pid = chance.choice(sorted(living(made).items()))
        if kill(pid):
            figures.kills[name.rpartition("-")[0]] += 1
        if time.monotonic() - said > 20:
            said = time.monotonic()
            say(f"{said - began:4.0f} s  {figures.kills.total()} kills  {len(tally.operations)} commands accepted")
    ended = time.monotonic()
    gaps = longest_gap(tally.times, began, ended), longest_gap(tally.reads, began, ended)
    figures.unavailable["random-kills"].append(gaps)


def kill(pid: int) -> bool:
    """Kill a process of this cluster; False if it has just ended."""
    with contextlib.suppress(ProcessLookupError):
        if any(command_line(pid)):
            os.kill(pid, signal.SIGKILL)
            return True
    return False
