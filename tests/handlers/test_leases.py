"""Two daemons of one name, daemons that stand still, and daemons that start while handlers are away: real processes."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from domain.contract import Desired, LeaseNote, NodeReport, Power
from domain.node import Node, evolve as evolve_node
from eventstore.documents import Documents
from eventstore.log.envelope import Ref
from handlers.nodes.leases import Leases, newest_lease, read
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import SimulatedHost
from runtime import subjects
from tests.handlers.platform import WriteSide, write_side
from tests.node_process import node_process, simulated
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def side(servers_home: Path) -> AsyncIterator[WriteSide]:
    home = servers_home / f"leases-{uuid.uuid4().hex[:8]}"
    home.mkdir()
    async with write_side(home, NEBULA_NODE_TIMEOUT="600", NEBULA_LEASE_SECONDS="3") as made:
        await made.start()
        await made.cloud()
        yield made


async def node(side: WriteSide, name: str) -> Node | None:
    return (await side.store.load(Ref("system", "node", name), evolve_node, fresh=True)).state


async def lease(side: WriteSide, name: str, number: int) -> Node:
    """The node, once its lease was given for the so-manieth time."""

    async def given() -> Node | None:
        found = await node(side, name)
        return found if found is not None and found.lease == number else None

    found: Node = await eventually(given, f"lease {number} of {name}")
    return found


async def running(side: WriteSide, region: str) -> str:
    """A VM that runs on the node of this region."""
    vm = await side.create(region=region)
    await eventually(lambda: side.has("default", "vm", vm, "VmStarted"), "it runs")
    return vm


async def not_wanted(side: WriteSide, vm: str) -> None:
    """Wait until the VM's document says that it is to be off."""

    async def off() -> bool:
        wanted = await side.wanted(vm)
        return wanted is not None and wanted.desired is Desired.OFF

    await eventually(off, "it is to be off")


async def last_report(side: WriteSide, name: str, vm: str) -> NodeReport:
    found = await side.nc.jetstream().get_last_msg(subjects.REPORTS, subjects.report(name, "vm", vm))
    return NodeReport.model_validate_json(found.data or b"")


def host(home: Path, prefix: str) -> SimulatedHost:
    """The first simulated host on this folder, as it is remembered."""
    return SimulatedHost(f"{prefix}-001", HostStore(home / f"simulated-{prefix}" / "hosts.sqlite"))


def is_on(home: Path, prefix: str, vm: str) -> bool:
    with closing(host(home, prefix)) as found:
        return vm in found.running()


async def test_a_daemon_that_stood_still_does_nothing_more_once_another_has_taken_over(side: WriteSide) -> None:
    name = "still"
    async with node_process(side.home / "a", side.nats.url, *simulated(name)) as first:
        await lease(side, "still-001", 1)
        vm = await running(side, name)
        first.signal(signal.SIGSTOP)
        taking = side.home / "b"
        async with node_process(taking, side.nats.url, *simulated(name), NEBULA_TAKE_OVER="true") as second:
            assert (await lease(side, "still-001", 2)).holder
            await eventually(
                lambda: side.has("default", "vm", vm, "VmFailed"), "there is no disk, as was to be expected"
            )
            await not_wanted(side, vm)
            first.signal(signal.SIGCONT)
            await first.says("the lease of this node was given to another daemon; this daemon stops its work")
            await first.says("another daemon works for node still-001")
            assert is_on(first.home, name, vm), "it would have ended the guest"
            assert (found := await node(side, "still-001")) is not None and found.holder is not None
            assert found.holder.pid == second.pid


async def test_a_daemon_that_stood_still_and_has_no_rival_works_on(side: WriteSide) -> None:
    async with node_process(side.home / "c", side.nats.url, *simulated("slow")) as only:
        await lease(side, "slow-001", 1)
        vm = await running(side, "slow")
        only.signal(signal.SIGSTOP)
        await side.ok("default", "vm", "stop", {"vm": vm, "force": True})
        await not_wanted(side, vm)
        await asyncio.sleep(2)  # more than half of NEBULA_LEASE_SECONDS
        only.signal(signal.SIGCONT)
        await only.says("no heartbeat for too long")
        await eventually(lambda: side.has("default", "vm", vm, "VmStopped"), "it works on")
        await lease(side, "slow-001", 1)


async def test_guests_of_a_host_that_boots_while_handlers_are_away(side: WriteSide) -> None:
    """The daemon on the folder that had the lease last starts them. One on another folder starts nothing."""
    home, name = side.home / "d", "boots"
    async with node_process(home, side.nats.url, *simulated(name)) as first:
        await lease(side, "boots-001", 1)
        vm = await running(side, name)
        await first.kill()
    await side.stop_all()
    with closing(host(home, name)) as rebooted:
        rebooted.reboot()
    assert not is_on(home, name, vm)

    async with node_process(side.home / "e", side.nats.url, *simulated(name)) as other:
        await other.says("no handlers answer, and the last lease was granted to another data folder")
    async with node_process(side.home / "e", side.nats.url, *simulated("new")) as never:
        await never.says("no handlers answer, and this node never had a lease; nothing is started until they answer")

    async with node_process(home, side.nats.url, *simulated(name)) as again:
        await again.says("the last lease was granted to this data folder, so work continues")
        await eventually(lambda: is_on(home, name, vm), "the guest is started")
        await side.start()
        await lease(side, "boots-001", 2)

        async def told() -> bool:
            report = await last_report(side, "boots-001", vm)
            return (report.lease, report.power) == (2, Power.ON)

        await eventually(told, "it reports under its own lease")
        assert is_on(home, name, vm)
        twice = "before the host's boot, and after it"
        await eventually(lambda: side.has("default", "vm", vm, "VmStarted", 2), twice)
        types = await side.types("default", "vm", vm)
        assert not {"VmFailed", "VmStopped", "VmLost"} & set(types)


async def test_the_note_of_a_lease_is_never_that_of_an_earlier_one(side: WriteSide) -> None:
    assert await newest_lease(side.store, "noted") == 0

    async def newest(node_id: str) -> int:
        return 2

    documents = Documents(side.nc, subjects.LEASES)
    leases = Leases(documents, newest)
    first, second = (LeaseNote(node="noted", lease=n, boot=f"b{n}", identity=f"i{n}") for n in (1, 2))
    for note, stands in ((first, first), (second, second), (first, second), (second, second)):
        await leases.note(note)
        [found] = await documents.all(subjects.lease("noted"))
        assert read(found.body) == stands
    never = LeaseNote(node="noted", lease=2**31 - 1, boot="b", identity="i")
    for body in (b"nonsense", never.model_dump_json().encode()):
        await documents.put(subjects.lease("noted"), body, last=found.position)
        await leases.note(second)
        [found] = await documents.all(subjects.lease("noted"))
        assert read(found.body) == second


async def test_two_daemons_of_one_name_on_libvirt(side: WriteSide) -> None:
    """One VM runs; the second daemon says who has the node, and has no part in it, also when the first is killed."""
    own = {"NEBULA_LIBVIRT_URI": "test:///default", "NEBULA_NODE": "lv", "NEBULA_REGION": "lv"}
    own["NEBULA_IMAGE_PATHS"] = str(side.home)
    async with node_process(side.home / "f", side.nats.url, **own) as first:
        await lease(side, "lv", 1)
        vm = await running(side, "lv")
        async with node_process(side.home / "g", side.nats.url, **own) as second:
            await second.says(f"another daemon works for node lv: process {first.pid} on host")
            async with node_process(side.home / "f", side.nats.url, **own) as third:
                assert await third.process.wait() == 2
                assert "another node daemon works on" in third.said() and "Traceback" not in third.said()
            await first.kill()
            await second.says("the 1 VMs of node lv are with another daemon")
            async with node_process(side.home / "f", side.nats.url, **own):
                await lease(side, "lv", 2)

                async def told() -> bool:
                    report = await last_report(side, "lv", vm)
                    return (report.lease, report.power) == (2, Power.ON)

                await eventually(told, "the next one on the folder has it running")
        types = await side.types("default", "vm", vm)
        assert not {"VmFailed", "VmStopped", "VmLost"} & set(types)
