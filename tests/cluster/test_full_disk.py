"""The disk of one server of three, and of all of them, is full: nothing that was acknowledged is lost, and all of them
go on by themselves when there is room.
"""

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.local.cluster.cluster import SERVERS
from cli.local.cluster.network import addresses
from tests.cluster.bed import Bed, bed
from tests.cluster.run import is_current
from tests.cluster.test_leader import accepted, is_kept, writing
from tests.cluster.writers import Ledger
from tests.small_disk import mounted, needs_root, resize, shrink
from tests.waiting import eventually

pytestmark = needs_root
MIB = 256


@pytest.fixture(scope="module")
async def small(servers_home: Path) -> AsyncIterator[Bed]:
    home = servers_home / "small"
    with ExitStack() as stack:
        for name in SERVERS:
            stack.enter_context(mounted(home / "hosts" / name / "nats", MIB))
        async with bed(home, addresses(SERVERS), {"handlers": ["a", "b"]}) as made:
            await eventually(made.decides, "handlers decide", 120)
            yield made


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    """Of all tests: they use the same log."""
    return Ledger()


async def test_the_disk_of_the_leader(small: Bed, ledger: Ledger) -> None:
    """The others go on without it, and it is back when there is room."""
    async with writing(small, ledger):
        await accepted(ledger, 50)
        leader = await eventually(small.leader, "the log has a leader", 60)
        process, began = small.cluster.servers[leader].pid, time.monotonic()
        shrink(small.cluster.store(leader))
        await eventually(lambda: led_by_another(small, leader), "another server leads", 60)
        await accepted(ledger, 50)
        print("seconds without an answer:", round(ledger.longest_gap(began, time.monotonic()), 2))
        resize(small.cluster.store(leader), MIB)
        await eventually(lambda: small.cluster.servers[leader].pid != process, "it is started again", 60)
        await eventually(lambda: is_current(small), "all servers have the log again", 120)
    await is_kept(small, ledger)


async def led_by_another(small: Bed, before: str) -> bool:
    return await small.leader() not in ("", before)


async def test_the_disks_of_all(small: Bed, ledger: Ledger) -> None:
    """No command is accepted, and all are again when there is room."""
    async with writing(small, ledger):
        await accepted(ledger, 50)
        for name in SERVERS:
            shrink(small.cluster.store(name))
        again, before = ledger.again, {name: small.cluster.servers[name].pid for name in SERVERS}
        await eventually(lambda: ledger.again > again + 8, "commands are refused", 60)
        for name in SERVERS:
            resize(small.cluster.store(name), MIB)
        await accepted(ledger, 50)
        await eventually(lambda: is_current(small), "all servers have the log again", 120)
    assert any(small.cluster.servers[name].pid != before[name] for name in SERVERS)
    await is_kept(small, ledger)
