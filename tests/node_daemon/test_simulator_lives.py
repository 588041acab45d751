"""The plan and the executor on the simulator, through everything that can happen."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from domain.contract import Desired, ImageSource, Power, Wanted
from domain.contract.wanted import Rescue
from node_daemon.hypervisor.faults import Faulty
from node_daemon.hypervisor.hypervisor import Have, Refused, Unreachable
from node_daemon.reconcile.executor import Executor
from node_daemon.reconcile.grace_periods import seconds
from node_daemon.reconcile.plan import LIVE, Host, Refuse, Shutdown, plan
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulated_storage import SimulatedDisks, SimulatedImages
from node_daemon.simulation.simulator import Call, Simulator
from runtime.settings import FaultRates
from tests.node_daemon.documents import new_vm, wanted

IMAGE = ImageSource(
    image="base", source="/base", sha256="0" * 64, format="raw", size_bytes=1, virtual_size_bytes=1024**3
)


class Crash(BaseException):
    """Stands for the death of the daemon: nothing catches it."""


def allowed(call: Call, want: Wanted, boot_id: str) -> bool:
    """Whether a document justifies what was done to a VM, given what there was of it."""
    before = call.before
    outdated = before.boots < want.boots
    match call.method:
        case "discard" if before.remains:
            return True
        case "destroy" | "shutdown" | "discard" if before.power in LIVE:
            ends = want.desired in (Desired.OFF, Desired.ABSENT) or outdated
            return ends and (before.persistent or want.desired is Desired.ABSENT)
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
        self.host_store = HostStore()
        self.simulator = Simulator(SimulatedHost("n1", self.host_store), on_call=self.judge)
        self.faulty = Faulty(self.simulator, FaultRates(), deadline=0.001)
        self.disks = SimulatedDisks("n1", self.host_store)
        self.want = {vm: wanted(vm, image=IMAGE) for vm in VMS}
        self.past = {vm: [want] for vm, want in self.want.items()}
        self.dies_in: int | None = None
        self.crimes: list[object] = []
        self.seen: dict[str, Have] = {}
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
        if (
            late
        ):  # it is judged by what its caller had seen: a leftover, whose guest is off by now, looks like its memory
            call = replace(call, before=self.seen[call.vm])
        if not any(allowed(call, want, self.simulator.host.boot_id) for want in wants):
            self.crimes.append((call, self.want[call.vm]))  # an exception might be taken for the hypervisor's
        if self.dies_in is not None and not late:
            self.dies_in -= 1
            if self.dies_in <= 0:
                self.dies_in = None
                raise Crash

    def restart_daemon(self) -> None:
        self.host = Host(self.simulator.host.boot_id)
        self.executor = Executor(self.faulty, SimulatedImages("n1", self.host_store), self.disks, self.host)

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
            self.seen[vm] = have
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
                    assert have.persistent or have.stalled
                    disks = [number for number in range(1, want.disk + 1) if self.disks.has_disk(vm, number)]
                    assert disks == [want.disk]
                    in_rescue = {int(name.rpartition("-")[2]) for name in self.disks.all() if f"{vm}#rescue-" in name}
                    assert in_rescue == ({want.rescue.disk} if want.rescue else set())
                    match have.power:
                        case Power.OFF:
                            assert have.host_boot == self.simulator.host.boot_id
                        case Power.PAUSED:
                            assert have.stalled
                        case _:
                            assert have.power is Power.ON
                case Desired.OFF:
                    assert have.power not in LIVE
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
        self.next(vm, turns, desired=Desired.ON, force_after=None, resume=False, rescue=None, **counts)

    @rule(vm=A_VM, turns=TURNS, grace=GRACE, back=st.booleans())
    def rescue(self, vm: str, turns: int, grace: timedelta | None, back: bool) -> None:
        boots = self.want[vm].boots + 1
        rescue = None if back else Rescue(image=IMAGE, disk=boots)
        more = {"boots": boots, "rescue": rescue, "force_after": after(grace)}
        self.next(vm, turns, desired=Desired.ON, resume=False, **more)

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
