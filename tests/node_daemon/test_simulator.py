"""What is the simulator's alone: time, random faults of guests and hosts, what hosts keep."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.contract import ImageSource, Power, Watchdog
from node_daemon.hypervisor.faults import Faulty
from node_daemon.hypervisor.hypervisor import Boot, Sighting, Unreachable
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulated_storage import SimulatedDisks, SimulatedImages
from node_daemon.simulation.simulator import Simulator
from runtime.settings import FaultRates, Latencies
from runtime.tasks.tasks import end
from tests.node_daemon.documents import new_vm, wanted
from tests.waiting import eventually

IMAGE = ImageSource(
    image="base", source="/base", sha256="0" * 64, format="raw", size_bytes=1, virtual_size_bytes=1024**3
)


def boot_of(simulator: Simulator, vm: str | None = None, **changes: Any) -> Boot:
    return Boot(wanted(vm or new_vm(), **changes), "/disk", "/base", "raw", "/console", simulator.host.boot_id)


async def test_a_guest_that_boots_hears_no_shutdown_and_has_no_address() -> None:
    simulator = Simulator(SimulatedHost(), seconds=Latencies(call=0, boot=0.2, lease=0.1, shutdown=0.05))
    boot = boot_of(simulator)
    vm = boot.wanted.vm
    await simulator.start(boot)
    await simulator.persist(vm)
    await simulator.shutdown(vm)
    assert await simulator.addresses(vm, boot.wanted.mac) == Sighting()
    await asyncio.sleep(0.4)
    assert (await simulator.look(vm)).power is Power.ON, "the first request was lost"
    assert len((await simulator.addresses(vm, boot.wanted.mac)).leases) == 1
    await simulator.shutdown(vm)
    assert (await simulator.look(vm)).power is Power.ON, "it takes a while"
    await eventually(lambda: not simulator.host.running(), "the guest is off")
    assert (await simulator.look(vm)).cause == "guest"


async def test_a_host_that_reboots_runs_nothing_and_forgets_what_was_not_kept() -> None:
    simulator = Simulator(SimulatedHost())
    kept, transient = boot_of(simulator), boot_of(simulator)
    for boot in (kept, transient):
        await simulator.start(boot)
    await simulator.persist(kept.wanted.vm)
    simulator.host.reboot()
    have = await simulator.look(kept.wanted.vm)
    assert (have.power, have.cause) == (Power.OFF, None)
    assert have.host_boot != simulator.host.boot_id
    assert (await simulator.look(transient.wanted.vm)).power is Power.ABSENT


async def test_a_hypervisor_that_restarts_knows_no_causes_and_says_so() -> None:
    simulator = Simulator(SimulatedHost())
    boot = boot_of(simulator)
    await simulator.start(boot)
    await simulator.persist(boot.wanted.vm)
    simulator.host.crash(boot.wanted.vm)
    nudges: list[str | None] = []
    watch = asyncio.create_task(simulator.watch(nudges.append))
    await asyncio.sleep(0)
    simulator.host.restart()
    assert nudges[-1] is None
    assert (await simulator.look(boot.wanted.vm)).cause is None
    await end([watch])


async def test_a_guest_that_resets_itself_boots_anew_in_its_domain() -> None:
    boots: list[tuple[int, int]] = []
    host = SimulatedHost(up=lambda _vm, count, resets, _url: boots.append((count, resets)))
    simulator, resets = Simulator(host), list[str]()
    boot = boot_of(simulator)
    watch = asyncio.create_task(simulator.watch(lambda _: None, resets.append))
    await simulator.start(boot)
    await eventually(lambda: boots[-1:] == [(1, 0)], "up")
    host.reset(boot.wanted.vm)
    await eventually(lambda: boots[-1:] == [(1, 1)], "up again")
    assert resets == [boot.wanted.vm]
    assert (await simulator.look(boot.wanted.vm)).power is Power.ON
    await end([watch])


@pytest.mark.parametrize(
    ("watchdog", "told", "left"),
    [
        (Watchdog.DISABLED, [], (Power.ON, None)),
        (Watchdog.RESET, ["fired", "reset"], (Power.ON, None)),
        (Watchdog.POWEROFF, ["fired"], (Power.OFF, "crashed")),
    ],
)
async def test_a_guest_that_hangs_meets_its_watchdog(
    watchdog: Watchdog, told: list[str], left: tuple[Power, str | None]
) -> None:
    simulator, heard = Simulator(SimulatedHost()), list[str]()
    boot = boot_of(simulator, watchdog=watchdog)
    await simulator.start(boot)
    await simulator.persist(boot.wanted.vm)
    watch = asyncio.create_task(
        simulator.watch(lambda _: None, lambda _: heard.append("reset"), lambda *_: heard.append("fired"))
    )
    await asyncio.sleep(0)
    simulator.host.hang(boot.wanted.vm)
    have = await simulator.look(boot.wanted.vm)
    assert (heard, (have.power, have.cause)) == (told, left)
    await end([watch])


async def test_time_goes_on_for_guests_while_their_process_is_dead(tmp_path: Path) -> None:
    seconds = Latencies(call=0, boot=0, lease=0, shutdown=0.1)
    first = Simulator(SimulatedHost("n1", HostStore(tmp_path / "hosts")), seconds=seconds)
    boot, other = boot_of(first), boot_of(first)
    for each in (boot, other):
        await first.start(each)
        await first.persist(each.wanted.vm)
    await first.shutdown(boot.wanted.vm)
    first.host.close()
    await asyncio.sleep(0.2)
    again = Simulator(SimulatedHost("n1", HostStore(tmp_path / "hosts")), seconds=seconds)
    await eventually(lambda: again.host.running() == [other.wanted.vm], "the power-off happened")
    assert again.host.boot_id == first.host.boot_id
    stranger = Simulator(SimulatedHost("n2", HostStore(tmp_path / "hosts")))
    assert await stranger.domains() == {}


async def test_a_call_that_hangs_blocks_its_vm_alone_and_may_come_true() -> None:
    simulator = Simulator(SimulatedHost())
    faulty = Faulty(simulator, FaultRates(hang=1), deadline=0.05)
    boot, other = boot_of(simulator), boot_of(simulator)
    failed = (await asyncio.gather(faulty.start(boot), return_exceptions=True))[0]
    assert isinstance(failed, Unreachable)
    faulty.rates = FaultRates()
    await faulty.start(other)

    async def through() -> bool:
        try:
            return (await faulty.look(boot.wanted.vm)).power is Power.ON
        except Unreachable:
            return False

    await eventually(through, "the call came true")


async def test_an_outage_is_told_at_both_ends() -> None:
    simulator = Simulator(SimulatedHost())
    faulty = Faulty(simulator, FaultRates(), deadline=60)
    nudges: list[str | None] = []
    watch = asyncio.create_task(faulty.watch(nudges.append))
    await eventually(lambda: nudges == [None], "it is there")
    async with faulty.outage():
        await eventually(lambda: nudges == [None, None], "it is away")
        try:
            await faulty.domains()
        except Unreachable:
            pass
        else:
            raise AssertionError("it answers")
    await eventually(lambda: nudges == [None, None, None], "it is there again")
    await faulty.domains()
    await end([watch])


async def test_a_console_ends_with_its_guest_whatever_ends_that() -> None:
    simulator = Simulator(SimulatedHost())
    boot = boot_of(simulator)
    vm = boot.wanted.vm
    await simulator.start(boot)
    await simulator.persist(vm)
    console = await simulator.open_console(vm, force=False)
    await simulator.pause(vm)
    await console.write(b"still here")
    assert await console.read() == b"still here"
    simulator.host.reboot()
    assert await asyncio.wait_for(console.read(), 5) == b""
    await simulator.start(boot)
    assert await simulator.open_console(vm, force=False) is not console


async def test_what_is_remembered_of_files(tmp_path: Path) -> None:
    images, disks = SimulatedImages("n1", HostStore(tmp_path / "a")), SimulatedDisks("n1", HostStore(tmp_path / "a"))
    base = await images.ensure(IMAGE)
    assert await disks.ensure("one", base, 4)
    assert not await disks.ensure("one", base, 4)
    disks.note_configured("one", (2, 1))
    again = SimulatedDisks("n1", HostStore(tmp_path / "a"))
    assert (again.all(), again.has_files("one"), again.configured("one")) == ({"one": 4}, True, (2, 1))
    await again.grow("one", 6)
    await again.grow("one", 5)
    assert again.all() == {"one": 6}
    assert await again.ensure("one", base, 6, 2)
    assert (again.has_disk("one"), again.has_disk("one", 2)) == (True, True)
    again.remove_earlier("one", 2)
    assert (again.has_disk("one"), again.has_disk("one", 2), again.configured("one")) == (False, True, (0, 0))
    for number in (3, 5):
        assert await again.ensure("one", base, 6, number, "rescue")
    again.remove_earlier("one", 5, "rescue")
    assert sorted(SimulatedDisks("n1", HostStore(tmp_path / "a")).all()) == ["one#2", "one#rescue-5"]
    again.remove("one")
    again.remove("one")
    last = SimulatedDisks("n1", HostStore(tmp_path / "a"))
    assert (last.all(), last.has_disk("one"), last.configured("one")) == ({}, False, (0, 0))


async def test_a_disk_is_found_without_a_look_at_those_of_other_vms(tmp_path: Path) -> None:
    """A lane looks for its VM's disks several times: with all VMs of a node it would cost more for each."""

    class Unscanned(dict[str, int]):
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("all disks of the node are looked at")

    disks = SimulatedDisks("n1", HostStore(tmp_path / "a"))
    base = await SimulatedImages("n1", HostStore(tmp_path / "a")).ensure(IMAGE)
    for vm in ("one", "two"):
        for number in (1, 2):
            await disks.ensure(vm, base, 5, number)
    disks._sizes = Unscanned(disks._sizes)
    assert disks.has_files("one")
    disks.remove_earlier("one", 2)
    assert (disks.has_disk("one"), disks.has_disk("one", 2)) == (False, True)
    disks.remove("one")
    assert (disks.has_files("one"), disks.has_files("two")) == (False, True)
    assert list(disks._names) == ["two"]
