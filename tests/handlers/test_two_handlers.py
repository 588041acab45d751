"""One of two handlers processes runs the managers, and the other one goes on where it is killed, stopped or cut off."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from eventstore.documents import Documents
from handlers.managers.lease import read
from runtime import subjects
from tests.gate import gate
from tests.handlers.platform import WriteSide, raw_disk, write_side
from tests.image_server import serving
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def side(servers_home: Path) -> AsyncIterator[WriteSide]:
    async with write_side(servers_home / "lease-of-managers", NEBULA_NODE_TIMEOUT="3600") as made:
        await made.start()
        await made.cloud()
        await made.node("host-1", vcpus=100, memory_mib=10**6)
        yield made


async def holder(nc: Client) -> int:
    """The process number of the one that runs the managers; 0 where nobody does."""
    found = await Documents(nc, subjects.MANAGERS).all(subjects.MANAGERS_LEASE)
    note = read(found[0].body) if found else None
    return note.holder.pid if note is not None and not note.returned else 0


async def another(side: WriteSide) -> asyncio.subprocess.Process:
    """One more process, once it decides commands as well as the one before: it stands by."""
    before = await named(side)
    started = await side.start()
    await eventually(lambda: is_another(side, before), "the new one answers too")
    return started


async def is_another(side: WriteSide, before: str) -> bool:
    return await named(side) != before


async def named(side: WriteSide) -> str:
    """How the process is called that answers."""
    return str((await side.decided("system", "health", "check", {}))["ok"]["process"])


async def works(side: WriteSide) -> None:
    """A VM is placed, and its node is told."""
    vm = str(uuid.uuid4())
    assert "ok" in await side.decided("default", "vm", "create", side.vm_args(vm))
    await eventually(lambda: side.wanted(vm), "placed, and told its node")


async def two(side: WriteSide) -> tuple[asyncio.subprocess.Process, asyncio.subprocess.Process]:
    """The process that runs the managers, and one that stands by. On a slow machine the lease may have moved."""
    await another(side)
    living = {process.pid: process for process in side.processes if process.returncode is None}
    assert len(living) == 2
    pid = await eventually(lambda: holder(side.nc), "somebody has it")
    return living.pop(pid), living.popitem()[1]


async def test_the_other_process_goes_on_when_the_holder_is_killed(side: WriteSide) -> None:
    """With what it was at: an image that is being read."""
    await works(side)
    first, second = await two(side)
    await works(side)
    async with serving(raw_disk()) as server:
        server.stall = 1000
        await side.ok("system", "image", "register", {"image": "slow", "name": "Slow", "source": server.url})
        await eventually(lambda: server.requests, "an image is being read")
        server.stall = None
        first.kill()
        await first.wait()
        await eventually(lambda: is_holder(side.nc, second.pid), "the other one has it")
        await works(side)
        await eventually(lambda: side.has("system", "image", "slow", "ImageVerified"), "the image is judged")


async def test_the_other_process_goes_on_when_the_holder_is_stopped(side: WriteSide) -> None:
    first, second = await two(side)
    first.terminate()
    await first.wait()
    await eventually(lambda: is_holder(side.nc, second.pid), "the other one has it")
    await works(side)


async def test_the_other_process_goes_on_when_the_holder_stands_still(side: WriteSide) -> None:
    """It has not ended, and does not know that it holds the lease no more."""
    first, second = await two(side)
    first.send_signal(signal.SIGSTOP)
    await eventually(lambda: is_holder(side.nc, second.pid), "the other one has it")
    first.send_signal(signal.SIGCONT)
    await works(side)


async def test_the_other_process_goes_on_when_the_holder_is_cut_off_from_the_bus(side: WriteSide) -> None:
    await side.stop_all()
    port = int(side.nats.url.rsplit(":", 1)[1])
    async with gate(port) as way:
        await way.open()
        direct, side.settings = side.settings, {**side.settings, "NEBULA_NATS_URL": f"nats://127.0.0.1:{way.port}"}
        cut_off = await side.start()
        side.settings = direct
        await eventually(lambda: is_holder(side.nc, cut_off.pid), "it has it")
        second = await another(side)
        await way.close()
        await eventually(lambda: is_holder(side.nc, second.pid), "the other one has it")
        await works(side)
        await way.open()
        await works(side)
        assert cut_off.returncode is None


async def is_holder(nc: Client, pid: int) -> bool:
    return await holder(nc) == pid
