"""What is the simulator's alone: time, the fates of guests and hosts, the shelf. And the plan, through all of it."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from domain.contract import Desired, ImageSource, Power, Wanted, Watchdog
from node_daemon.executor import Executor
from node_daemon.faults import Faulty
from node_daemon.graces import seconds
from node_daemon.hypervisor import Boot, Refused, Sighting, Unreachable
from node_daemon.plan import LIVES, Host, Refuse, Shutdown, plan
from node_daemon.shelf import Shelf
from node_daemon.simulated_host import SimulatedHost
from node_daemon.simulated_storage import SimulatedDisks, SimulatedImages
from node_daemon.simulator import Call, Simulator
from runtime.settings import FaultRates, Latencies
from runtime.tasks import end
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
    await simulator.keep(vm)
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
    await simulator.keep(kept.wanted.vm)
    simulator.host.reboot()
    have = await simulator.look(kept.wanted.vm)
    assert (have.power, have.cause) == (Power.OFF, None)
    assert have.host_boot != simulator.host.boot_id
    assert (await simulator.look(transient.wanted.vm)).power is Power.ABSENT


async def test_a_hypervisor_that_restarts_knows_no_causes_and_says_so() -> None:
    simulator = Simulator(SimulatedHost())
    boot = boot_of(simulator)
    await simulator.start(boot)
    await simulator.keep(boot.wanted.vm)
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
    await simulator.keep(boot.wanted.vm)
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
    first = Simulator(SimulatedHost("n1", Shelf(tmp_path / "hosts")), seconds=seconds)
    boot, other = boot_of(first), boot_of(first)
    for each in (boot, other):
        await first.start(each)
        await first.keep(each.wanted.vm)
    await first.shutdown(boot.wanted.vm)
    first.host.close()
    await asyncio.sleep(0.2)
    again = Simulator(SimulatedHost("n1", Shelf(tmp_path / "hosts")), seconds=seconds)
    await eventually(lambda: again.host.running() == [other.wanted.vm], "the power-off happened")
    assert again.host.boot_id == first.host.boot_id
    stranger = Simulator(SimulatedHost("n2", Shelf(tmp_path / "hosts")))
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
    await simulator.keep(vm)
    console = await simulator.open_console(vm, force=False)
    await simulator.pause(vm)
    await console.write(b"still here")
    assert await console.read() == b"still here"
    simulator.host.reboot()
    assert await asyncio.wait_for(console.read(), 5) == b""
    await simulator.start(boot)
    assert await simulator.open_console(vm, force=False) is not console


async def test_what_is_remembered_of_files(tmp_path: Path) -> None:
    images, disks = SimulatedImages("n1", Shelf(tmp_path / "a")), SimulatedDisks("n1", Shelf(tmp_path / "a"))
    base = await images.ensure(IMAGE)
    assert await disks.ensure("one", base, 4)
    assert not await disks.ensure("one", base, 4)
    disks.note_configured("one", (2, 1))
    again = SimulatedDisks("n1", Shelf(tmp_path / "a"))
    assert (again.all(), again.has_files("one"), again.configured("one")) == ({"one": 4}, True, (2, 1))
    await again.grow("one", 6)
    await again.grow("one", 5)
    assert again.all() == {"one": 6}
    assert await again.ensure("one", base, 6, 2)
    assert (again.has_disk("one"), again.has_disk("one", 2)) == (True, True)
    again.remove_earlier("one", 2)
    assert (again.has_disk("one"), again.has_disk("one", 2), again.configured("one")) == (False, True, (0, 0))
    again.remove("one")
    again.remove("one")
    last = SimulatedDisks("n1", Shelf(tmp_path / "a"))
    assert (last.all(), last.has_disk("one"), last.configured("one")) == ({}, False, (0, 0))


# ── the plan and the executor, through everything that can happen ───────────────────────────────────────────────────


class Crash(BaseException):
    """Stands for the death of the daemon: nothing catches it."""


def allowed(call: Call, want: Wanted, boot_id: str) -> bool:
    """Whether a document justifies what was done to a VM, given what there was of it."""
    before = call.before
    outdated = before.boots < want.boots
    match call.method:
        case "discard" if before.remains:
            return True
        case "destroy" | "shutdown" | "discard" if before.power in LIVES:
            ends = want.desired in (Desired.OFF, Desired.ABSENT) or outdated
            return ends and (before.kept or want.desired is Desired.ABSENT)
        case "undefine":
            return want.desired is Desired.ABSENT
        case "start" if before.power is Power.OFF:
            return outdated or before.host_boot != boot_id
    return True


VMS = [new_vm() for _ in range(3)]
A_VM = st.sampled_from(VMS)
TURNS = st.integers(0, 3)
GRACE = st.sampled_from([None, timedelta(hours=-1), timedelta(hours=1)])


def after(grace: timedelta | None) -> datetime | None:
    return None if grace is None else datetime.now(UTC) + grace


class Lives(RuleBasedStateMachine):
    """Documents change, the daemon takes steps and dies between them, guests and hosts do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.do(self.set_up())

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def set_up(self) -> None:
        self.shelf = Shelf()
        self.simulator = Simulator(SimulatedHost("n1", self.shelf), told=self.judge)
        self.faulty = Faulty(self.simulator, FaultRates(), deadline=0.001)
        self.disks = SimulatedDisks("n1", self.shelf)
        self.want = {vm: wanted(vm, image=IMAGE) for vm in VMS}
        self.past = {vm: [want] for vm, want in self.want.items()}
        self.dies_in: int | None = None
        self.crimes: list[object] = []
        self.turning: asyncio.Task[Any] | None = None
        self.restart_daemon()

    def teardown(self) -> None:
        self.do(self.converge())
        self.simulator.host.close()
        self.do(asyncio.sleep(0))
        self.loop.close()

    def judge(self, call: Call) -> None:
        late = asyncio.current_task() is not self.turning  # a call that hung takes effect after its caller gave up
        wants = self.past[call.vm] if late else [self.want[call.vm]]
        if not any(allowed(call, want, self.simulator.host.boot_id) for want in wants):
            self.crimes.append((call, self.want[call.vm]))  # an exception might be taken for the hypervisor's
        if self.dies_in is not None and not late:
            self.dies_in -= 1
            if self.dies_in <= 0:
                self.dies_in = None
                raise Crash

    def restart_daemon(self) -> None:
        self.host = Host(self.simulator.host.boot_id)
        self.executor = Executor(self.faulty, SimulatedImages("n1", self.shelf), self.disks, self.host)

    def next(self, vm: str, turns: int, **changes: Any) -> None:
        """The next document of a VM, and some turns of its lane."""
        known = self.want[vm]
        if known.desired is not Desired.ABSENT:
            self.want[vm] = known.model_copy(update={"generation": known.generation + 1, **changes})
            self.past[vm].append(self.want[vm])
        self.work(vm, turns)

    def work(self, vm: str, turns: int) -> None:
        for _ in range(turns):
            self.do(self.turn(vm))

    async def turn(self, vm: str) -> bool:
        """One turn of a lane; whether there was anything to do."""
        want = self.want[vm]
        self.turning = asyncio.current_task()
        try:
            have = await self.executor.look(vm)
            step = next(iter(plan({vm: want}, {vm: have}, self.host, seconds)), None)
            if step is None or isinstance(step, Refuse):
                return False
            await self.executor.carry_out(step, lambda: self.want[vm], lambda _: None)
            if isinstance(step, Shutdown):
                await asyncio.sleep(0.001)  # the guest goes down by a timer
        except (Refused, Unreachable):
            pass
        except Crash:
            self.restart_daemon()
        return True

    async def converge(self) -> None:
        self.faulty.rates, self.dies_in = FaultRates(), None
        await self.faulty.close()
        self.restart_daemon()
        for vm, want in list(self.want.items()):
            if want.force_after is not None:  # time passes: one that stands still hears no shutdown
                self.want[vm] = want.model_copy(update={"force_after": after(timedelta(hours=-1))})
            turns = 0
            while await self.turn(vm):
                turns += 1
                assert turns < 8, (want, await self.simulator.look(vm))
            have = await self.simulator.look(vm)
            assert not have.remains
            match want.desired:
                case Desired.ON:
                    assert (have.boots, have.disk) == (want.boots, want.disk)
                    assert have.kept or have.stalled
                    disks = [number for number in range(1, want.disk + 1) if self.disks.has_disk(vm, number)]
                    assert disks == [want.disk]
                    match have.power:
                        case Power.OFF:
                            assert have.host_boot == self.simulator.host.boot_id
                        case Power.PAUSED:
                            assert have.stalled
                        case _:
                            assert have.power is Power.ON
                case Desired.OFF:
                    assert have.power not in LIVES
                case Desired.PAUSED:
                    assert have.power not in (Power.ON, Power.SUSPENDED)
                case Desired.SUSPENDED:
                    assert have.power not in (Power.ON, Power.PAUSED)
                case Desired.ABSENT:
                    assert not have.domain
                    assert not self.disks.has_files(vm)

    @rule(vm=A_VM, turns=TURNS, grace=GRACE)
    def boot(self, vm: str, turns: int, grace: timedelta | None) -> None:
        boots = self.want[vm].boots + 1
        self.next(vm, turns, desired=Desired.ON, boots=boots, force_after=after(grace), resume=False)

    @rule(vm=A_VM, turns=TURNS)
    def rebuild(self, vm: str, turns: int) -> None:
        counts = {"boots": self.want[vm].boots + 1, "disk": self.want[vm].disk + 1}
        self.next(vm, turns, desired=Desired.ON, force_after=None, resume=False, **counts)

    @rule(vm=A_VM, turns=TURNS, grace=GRACE)
    def stop(self, vm: str, turns: int, grace: timedelta | None) -> None:
        self.next(vm, turns, desired=Desired.OFF, force_after=after(grace))

    @rule(vm=A_VM, turns=TURNS, power=st.sampled_from([Desired.ON, Desired.PAUSED, Desired.SUSPENDED]))
    def stand_or_go_on(self, vm: str, turns: int, power: Desired) -> None:
        if self.want[vm].desired is not Desired.OFF:
            self.next(vm, turns, desired=power, resume=power is Desired.ON)

    @rule(vm=A_VM, turns=TURNS)
    def delete(self, vm: str, turns: int) -> None:
        self.next(vm, turns, desired=Desired.ABSENT)

    @rule(vm=A_VM)
    def quiet(self, vm: str) -> None:
        self.work(vm, 4)

    @rule(acts=st.integers(1, 4))
    def the_daemon_will_die(self, acts: int) -> None:
        self.dies_in = acts

    @rule(refused=st.sampled_from([0.0, 0.3]), hang=st.sampled_from([0.0, 0.3]))
    def faults(self, refused: float, hang: float) -> None:
        self.faulty.rates = FaultRates(refused=refused, hang=hang)

    @rule(vm=A_VM, turns=TURNS, fate=st.sampled_from(["power_off", "crash", "stall", "vanish", "leave_memory"]))
    def befalls(self, vm: str, turns: int, fate: str) -> None:
        async def strike() -> None:
            getattr(self.simulator.host, fate)(vm)

        self.do(strike())
        self.work(vm, turns)

    @rule()
    def the_hypervisor_restarts(self) -> None:
        self.simulator.host.restart()

    @rule()
    def the_host_reboots(self) -> None:
        self.simulator.host.reboot()
        self.restart_daemon()

    @invariant()
    def no_crimes(self) -> None:
        assert self.crimes == []

    @invariant()
    def nothing_but_what_was_wanted_once(self) -> None:
        assert set(self.do(self.simulator.domains())) <= set(VMS)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
