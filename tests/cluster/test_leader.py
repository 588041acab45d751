"""Three servers on this machine: what was acknowledged is there once, whichever of them dies."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cli.local.cluster.cluster import SERVERS
from cli.local.cluster.network import addresses
from runtime import subjects
from runtime.bus.streams import platform_streams
from tests.cluster.bed import Bed, bed
from tests.cluster.elections import first_after
from tests.cluster.writers import Ledger, write
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def three(servers_home: Path) -> AsyncIterator[Bed]:
    async with bed(servers_home / "three", addresses(SERVERS), {"handlers": ["a", "b"]}) as made:
        await eventually(made.decides, "handlers decide", 120)
        yield made


@asynccontextmanager
async def writing(three: Bed, ledger: Ledger, writers: int = 8) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with three.connected("gateway") as nc:
        tasks = [asyncio.create_task(write(nc, ledger, stop)) for _ in range(writers)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)


async def accepted(ledger: Ledger, more: int) -> None:
    wanted = len(ledger.accepted) + more
    await eventually(lambda: len(ledger.accepted) >= wanted, f"{more} more commands are accepted", 120)


async def is_kept(three: Bed, ledger: Ledger) -> None:
    """Every server has what was acknowledged, once, at its position, and nothing else."""
    for server in SERVERS:
        async with three.connected("handlers", server) as nc:
            store = three.store(nc)
            events = await store.between(0, await store.last_position())
        made = Counter(one.subject.split(".")[4] for one in events if one.type == "nebula.project.ProjectCreated")
        at = {one.position: one for one in events}
        assert [one.position for one in events] == list(range(1, len(events) + 1))
        for id_, position in ledger.accepted.items():
            assert made[id_] == 1, f"{id_} was accepted, and is {made[id_]} times in the log of {server}"
            assert at[position].subject.split(".")[4] == id_
        assert not made.keys() - ledger.sent
        assert max(made.values()) == 1
    assert ledger.refused == []


async def test_every_stream_has_three_copies(three: Bed) -> None:
    async with three.connected("handlers") as nc:
        for config in platform_streams(3):
            info = await nc.jetstream().stream_info(str(config.name))
            assert info.config.num_replicas == 3
            assert info.cluster is not None
            assert len(info.cluster.replicas or []) == 2


async def test_a_server_without_our_certificate_is_no_member(three: Bed) -> None:
    """Whoever reaches the port of the routes needs a certificate that the authority has made for a server."""
    host = three.cluster.network.host("a")
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"{host.address}:6222", "-tls1_3", "-brief",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    await process.communicate(b"INFO {}\r\n")
    log = three.home / "log" / "nats-a.log"
    await eventually(lambda: "didn't provide a certificate" in log.read_text(), "it is refused", 20)


async def test_the_leader_is_killed_again_and_again(three: Bed) -> None:
    ledger = Ledger()
    gaps: list[tuple[float, float]] = []
    async with writing(three, ledger):
        await accepted(ledger, 50)
        for _ in range(3):
            leader = await eventually(three.leader, "the log has a leader", 60)
            killed, at = time.monotonic(), time.time()
            await three.cluster.stop_server(leader)
            await accepted(ledger, 50)
            election = first_after(three.home / "log", at)
            assert election is not None
            gaps.append((election, ledger.first_after(killed + election) - killed))
            await three.cluster.start_server(leader)
            await eventually(lambda: has_all(three), "all servers have the log again", 60)
        await accepted(ledger, 50)
    for election, answer in gaps:
        print(f"a leader after {election:.2f} s, a command accepted {answer - election:.2f} s later")
    await is_kept(three, ledger)


async def has_all(three: Bed) -> bool:
    """Whether no copy of the log is behind."""
    async with three.connected("handlers") as nc:
        info = await nc.jetstream().stream_info(subjects.EVENTS)
    replicas = (info.cluster.replicas or []) if info.cluster else []
    return len(replicas) == 2 and all(one.current and not one.offline for one in replicas)
