"""Whatever is asked of a VM and whatever its node reports, in any order: the rules hold."""

import contextlib
from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from domain import vm
from domain.base import Event, Rejected, Resources
from domain.contract import Desired, NodeReport, Power, ReportError
from domain.vm import (
    VISIBLE,
    ChangeVm,
    CloseConsole,
    Considered,
    Console,
    DeferVm,
    DeleteVm,
    DropVm,
    ExpireOperation,
    ForgetVm,
    HostKey,
    LoseVm,
    OpenConsole,
    PauseVm,
    Phase,
    RebuildVm,
    RecordGuestReady,
    RecordReport,
    ResizeVm,
    RestartByPolicy,
    RestartVm,
    ResumeVm,
    StartVm,
    StopVm,
    SuspendVm,
    TagVm,
    Vm,
    VmCleared,
    VmConsoleClosed,
    VmOperationCommand,
)
from domain.vm.kind import VM
from domain.vm.verbs import VERBS
from domain.vm.verbs.create import CREATE
from domain.vm.verbs.delete import DELETE
from tests.domain.lives import ID, LIVES, create, schedule
from tests.domain.story import at, fold, stored, uid

NODES = st.sampled_from(["n1", "n1", "n1", "n2"])
OPERATIONS = st.integers(10, 60)
ASKED: list[type[VmOperationCommand]] = [verb.command for verb in VERBS if verb not in (CREATE, DELETE)]
REASONS = st.lists(st.builds(Considered, node=NODES, reason=st.sampled_from([None, "is full"])), max_size=2).map(tuple)


class VmMachine(RuleBasedStateMachine):
    """`state` is stepped; `history` is what would stand in the log."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Vm | None = None
        self.history: list[Event] = []
        self.seconds = 0
        self.doomed = False

    def ask(self, command: Any) -> list[Any]:
        """Decide, then evolve. Nothing but Rejected may be raised."""
        before = self.state
        try:
            events: list[Any] = list(vm.decide(before, command))
        except Rejected as error:
            assert error.code
            assert error.detail
            return []
        for event in events:
            read = stored(event)
            assert read == event
            self.state = vm.evolve(self.state, read)
        self.history += events
        if before is not None and before.phase is Phase.DELETED:
            if events:
                assert [type(event) for event in events] in ([VmCleared], [VmConsoleClosed])
                assert isinstance(events[0], VmConsoleClosed) or before.forgotten is not None
                assert isinstance(events[0], VmConsoleClosed) or not before.cleared
            assert self.state is not None
            assert (self.state.phase, self.state.pending, self.state.desired) == (Phase.DELETED, None, Desired.ABSENT)
        return events

    def now(self) -> Any:
        return at(self.seconds)

    @rule(seconds=st.sampled_from([1, 60, 3600, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.seconds += seconds

    @initialize(life=st.sampled_from([None, *LIVES]))
    def begins(self, life: str | None) -> None:
        for command in LIVES[life][0] if life else ():
            self.ask(command)
            self.a_deletion_never_turns_back()
        self.seconds = 200 if life else 0

    @rule(operation=st.integers(1, 2))
    def is_created(self, operation: int) -> None:
        self.ask(create(operation=uid(operation), at=self.now()))

    @rule(session=st.sampled_from(["0" * 32, "1" * 32]), opens=st.booleans())
    def somebody_looks_at_its_console(self, session: str, opens: bool) -> None:
        before = self.state
        said = {"vm": ID, "at": self.now(), "session": session, "console": Console.VNC}
        self.ask(OpenConsole(**said) if opens else CloseConsole(**said, seconds=1))
        assert (self.state and VM.stored.dump_python(self.state)) == (before and VM.stored.dump_python(before))

    @rule(operation=OPERATIONS)
    def is_deleted(self, operation: int) -> None:
        self.is_asked(DeleteVm, operation, "f", force=False)

    @rule(
        command=st.sampled_from(ASKED),
        operation=OPERATIONS,
        fingerprint=st.sampled_from(["f", "f", "f", "g"]),
        force=st.booleans(),
    )
    def is_asked(self, command: type[VmOperationCommand], operation: int, fingerprint: str, force: bool) -> None:
        given: dict[str, Any] = {"vm": ID, "operation": uid(operation), "fingerprint": fingerprint, "at": self.now()}
        if "force" in command.model_fields:
            given["force"] = force
        if command is TagVm:
            given["tags"] = ("a",)
        if command is ChangeVm:
            given |= {
                "restart_policy": "always",
                "watchdog": "reset",
                "name": "db",
                "labels": {"a": "b"},
                "protected": force,
            }
        if command is ResizeVm:
            given |= {"vcpus": 2, "disk_gib": 4 + force}
        if command is RebuildVm:
            given["image"] = "other"
        if command is ForgetVm:
            given |= {"reason": "burnt down", "node_lost": force and self.seconds > 0}
        asked = command(**given)
        if self.ask(asked) and self.state is not None:
            assert self.ask(asked) == [], "the same operation again"

    @rule(node=NODES)
    def is_placed(self, node: str) -> None:
        self.ask(schedule(node).model_copy(update={"at": self.now()}))

    @rule(considered=REASONS)
    def waits_for_room(self, considered: tuple[Considered, ...]) -> None:
        command = DeferVm(vm=ID, at=self.now(), considered=considered)
        self.ask(command)
        assert self.ask(command) == []

    @rule()
    def loses_its_ground(self) -> None:
        self.ask(DropVm(vm=ID, at=self.now(), code="image_not_found", detail="gone"))

    @rule(
        node=NODES,
        epoch=st.sampled_from([1, 1, 1, 1, 1, 2]),
        ahead=st.sampled_from([0, 1, 1, 2, -1]),
        power=st.sampled_from(Power),
        boots=st.integers(0, 3),
        size=st.sampled_from([None, Resources(vcpus=1, memory_mib=512, disk_gib=4), Resources(vcpus=2)]),
        addresses=st.sampled_from([(), ("192.0.2.7",), ("192.0.2.7", "192.0.2.8")]),
        cause=st.sampled_from([None, "guest", "crashed"]),
        step=st.sampled_from([None, None, "image", "disk"]),
        error=st.sampled_from([None, None, None, ReportError(code="disk_full", detail="no space left")]),
    )
    def is_reported(self, ahead: int, **report: Any) -> None:
        sequence = max(0, (self.state.sequence if self.state else 0) + ahead)
        seen = NodeReport(vm=ID, at=self.now(), sequence=sequence, **report)
        command = RecordReport(vm=ID, at=self.now(), report=seen)
        events = self.ask(command)
        assert events == [] or ahead > 0
        assert self.ask(command) == [], "the same report again"

    @rule(operation=OPERATIONS)
    def its_policy_starts_it(self, operation: int) -> None:
        if self.state is not None and uid(operation) not in self.state.operations:
            asked = self.state.restart_at
            events = self.ask(RestartByPolicy(vm=ID, operation=uid(operation), at=self.now()))
            assert events == [] or (asked is not None and asked <= self.now())

    @rule(keys=st.sampled_from([(), (HostKey(type="ssh-ed25519", key="AAAA", fingerprint="SHA256:x"),)]))
    def phones_home(self, keys: tuple[HostKey, ...]) -> None:
        self.ask(RecordGuestReady(vm=ID, at=self.now(), host_keys=keys))

    @rule(node=NODES)
    def is_lost(self, node: str) -> None:
        self.ask(LoseVm(vm=ID, at=self.now(), node=node))

    @rule(operation=OPERATIONS)
    def something_expires(self, operation: int) -> None:
        self.ask(ExpireOperation(vm=ID, at=self.now(), operation=uid(operation)))

    @precondition(lambda self: self.state is not None and self.state.pending is not None)
    @rule()
    def what_is_pending_times_out(self) -> None:
        assert self.state is not None
        assert self.state.pending is not None
        pending = self.state.pending
        late = max(self.now(), pending.deadline)
        assert len(self.ask(ExpireOperation(vm=ID, at=late, operation=pending.operation))) == 1
        assert self.state.pending is None

    def teardown(self) -> None:
        assert fold(vm.evolve, self.history) == self.state, "the history tells the same"

    @invariant()
    def a_deletion_never_turns_back(self) -> None:
        if self.state is not None:
            assert not self.doomed or self.state.desired is Desired.ABSENT
            self.doomed = self.state.desired is Desired.ABSENT
        if self.doomed:
            for command in (StartVm, StopVm, RestartVm, PauseVm, ResumeVm, SuspendVm):
                with contextlib.suppress(Rejected):
                    vm.decide(self.state, command(vm=ID, operation=uid(999), fingerprint="f", at=self.now()))
                    raise AssertionError(f"{command} is accepted while it is being deleted")

    @invariant()
    def what_is_pending_is_known_and_ends(self) -> None:
        if self.state is not None and self.state.pending is not None:
            pending = self.state.pending
            assert pending.since <= pending.deadline
            assert self.state.operations[pending.operation].verb in (pending.verb, "retry")
            assert self.state.phase is not Phase.DELETED

    @invariant()
    def there_is_always_a_way_out(self) -> None:
        if self.state is None or self.state.phase is Phase.DELETED:
            return
        if self.state.pending is not None and self.state.pending.verb == "delete":
            return
        asked: dict[str, Any] = {"vm": ID, "fingerprint": "f", "at": self.now()}
        state: Vm | None = self.state
        for command in (ChangeVm(**asked, operation=uid(998), protected=False), DeleteVm(**asked, operation=uid(999))):
            events = vm.decide(state, command)
            assert events
            for event in events:
                state = vm.evolve(state, event)

    @invariant()
    def what_waits_for_nothing_is_at_rest(self) -> None:
        """No operation pending: it is not in a phase that only an operation leads out of."""
        if self.state is not None and self.state.pending is None and self.state.desired is not Desired.ABSENT:
            assert self.state.phase not in (Phase.REQUESTED, Phase.UNSCHEDULABLE, Phase.SCHEDULED)

    @invariant()
    def what_has_a_domain_has_a_node(self) -> None:
        if self.state is not None and self.state.phase in (*VISIBLE, Phase.LOST):
            assert self.state.node is not None
            assert self.state.epoch == 1

    @invariant()
    def what_is_wanted_of_a_guest_at_rest_is_what_it_is(self) -> None:
        """Nobody waits: nothing pulls the plug of a paused guest, or throws away the memory of a suspended one."""
        if self.state is not None and self.state.pending is None and self.state.desired is not Desired.ABSENT:
            kept = {Phase.PAUSED: Desired.PAUSED, Phase.SUSPENDED: Desired.SUSPENDED}
            late_stop = self.state.desired is Desired.OFF and self.state.force_after is not None
            assert late_stop or self.state.desired is kept.get(self.state.phase, self.state.desired)

    @invariant()
    def force_needs_a_moment(self) -> None:
        if self.state is not None and self.state.pending is not None:
            verb = self.state.pending.verb
            assert (verb not in ("stop", "restart")) or self.state.force_after is not None


VmMachine.TestCase.settings = settings(max_examples=400, stateful_step_count=20, deadline=None)
TestVmMachine = VmMachine.TestCase
