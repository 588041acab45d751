"""A short run of `make chaos-cluster`: the leader is killed, then all three servers at the same moment, then a role;
the clock of one process of each kind jumps; and in the end a random process is killed every half second.
"""

import logging
import os

import pytest

from bench import homes
from tests.cluster import clock
from tests.cluster.bed import Bed
from tests.cluster.ending import Say
from tests.cluster.faults import FAULTS, KINDS
from tests.cluster.figures import Figures
from tests.cluster.kills import WITH_THREE_HANDLERS, one_each
from tests.cluster.run import Plan, in_turn, run
from tests.cluster.tenants import Tally

SEED, SECONDS, PAUSE = 7, 5.0, 0.5
KILLED = ["leader-killed", "all-killed", "role-killed"]
CLOCKS = [f"clock-of-{kind}" for kind in KINDS]


async def faults(made: Bed, tally: Tally, figures: Figures, say: Say) -> None:
    await in_turn(KILLED + (CLOCKS if clock.POSSIBLE else []), SEED, 0, 1, made, tally, figures, say)
    await one_each(PAUSE, SECONDS, SEED, made, tally, figures, say)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")
async def test_what_was_promised_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # nats-py over TLS warns at each end of a connection
    for name in CLOCKS:
        fault, _, _ = FAULTS[name]
        monkeypatch.setitem(FAULTS, name, (fault, 1, 2))
    with homes.home("chaos") as home:
        figures = await run(home, Plan(SEED, nodes=3, places=WITH_THREE_HANDLERS), faults, print)
    assert figures.violations == []
    assert figures.accepted > 50
    assert figures.kills.total() > SECONDS
