"""A host: what it says of itself, the books of what is promised on it, silence and cordons."""

from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from domain import node
from domain.base import Category, Event, Rejected, Resources, replace
from domain.contract import Daemon, NodeInfo
from domain.node import (
    CapacityReleased,
    CapacityReserved,
    ChangeReservation,
    CordonNode,
    LoseNode,
    Node,
    NodeCordoned,
    NodeLeased,
    NodeLeaseReturned,
    NodeLost,
    NodeRecovered,
    NodeRegistered,
    NodeRetired,
    NodeUncordoned,
    RecoverNode,
    RegisterNode,
    Release,
    Reserve,
    RetireNode,
    ReturnLease,
    SeedUrlSet,
    SetSeedUrl,
    Silence,
    UncordonNode,
)
from domain.node.kind import NODE
from tests.domain.story import Story, at, fold, stored, uid

ONE = Resources(vcpus=1, memory_mib=512, disk_gib=4)


def info(**more: Any) -> NodeInfo:
    given = {"node": "n1", "region": "north", "vcpus": 4, "memory_mib": 4096, "disk_gib": 100, "virt_type": "kvm"}
    return NodeInfo(**{**given, "seed_url": "http://192.0.2.1/", "version": "1", **more})


def register(**more: Any) -> RegisterNode:
    return RegisterNode(node="n1", at=at(), info=info(**more))


def reserve(vm: int = 1) -> Reserve:
    return Reserve(node="n1", vm=uid(vm), resources=ONE, at=at(1))


def cordon(operation: int = 10, fingerprint: str = "f") -> CordonNode:
    return CordonNode(node="n1", operation=uid(operation), fingerprint=fingerprint, at=at(2))


def uncordon(operation: int = 11) -> UncordonNode:
    return UncordonNode(node="n1", operation=uid(operation), fingerprint="f", at=at(3))


def retire(operation: int = 12, needed: tuple[int, ...] = (), fingerprint: str = "f") -> RetireNode:
    vms = tuple(uid(vm) for vm in needed)
    return RetireNode(node="n1", operation=uid(operation), fingerprint=fingerprint, at=at(6), needed=vms)


def take_over() -> RegisterNode:
    return RegisterNode(node="n1", at=at(7), info=info(), take_over=True)


LOSE = LoseNode(node="n1", silent_seconds=31.5, at=at(4))
RECOVER = RecoverNode(node="n1", at=at(5))
NEW: Story[Node] = Story(node.decide, node.evolve, None)
READY = Story(node.decide, node.evolve, NEW.when(register()).after)


def test_it_registers_at_first_contact_and_when_it_has_changed() -> None:
    done = NEW.when(register()).then(NodeRegistered)
    done.and_when(register()).then_nothing()
    grown = done.and_when(register(memory_mib=8192)).then(NodeRegistered).after
    assert (grown.info.memory_mib, grown.registered_at) == (8192, at())


def test_only_a_lost_node_without_vms_that_somebody_needs_is_retired() -> None:
    READY.when(retire()).then_rejected("node_not_lost")
    lost = Story(node.decide, node.evolve, READY.when(reserve(1)).and_when(reserve(2)).and_when(LOSE).after)
    refusal = lost.when(retire(needed=(1, 2, 9))).then_rejected("node_in_use")
    assert refusal.detail.startswith("2 VMs") and uid(1) in refusal.detail
    retired = lost.when(retire(needed=(9,))).then(NodeRetired)
    assert (retired.after.retired_at, retired.after.holder) == (at(6), None)
    assert set(retired.after.reservations) == {uid(1), uid(2)}, "lost VMs can still be forgotten"


def test_a_retired_node_is_asked_for_nothing_more() -> None:
    retired = Story(node.decide, node.evolve, READY.when(reserve(1)).and_when(LOSE).and_when(retire()).after)
    retired.when(retire()).then_nothing()
    retired.when(retire(fingerprint="other")).then_rejected("idempotency_key_reused", Category.INVALID)
    for command in (retire(13), cordon(14), uncordon(15), reserve(3)):
        retired.when(command).then_rejected("node_retired", Category.GONE)
    for heard in (RECOVER, LOSE):
        retired.when(heard).then_nothing()
    retired.when(Release(node="n1", vm=uid(1), at=at(9))).then(CapacityReleased)


def test_a_host_that_comes_back_is_told_and_works_again_when_it_takes_over() -> None:
    leased = READY.when(lease(daemon())).and_when(LOSE).and_when(retire()).after
    retired = Story(node.decide, node.evolve, leased)
    for said in (register(), lease(daemon()), lease(daemon(), heir=True), lease(daemon("b2", "i2"))):
        refusal = retired.when(said).then_rejected("node_retired")
        assert "NEBULA_TAKE_OVER" in refusal.detail
    again = retired.when(lease(daemon("b2", "i2"), take_over=True)).then(NodeRegistered, NodeLeased).after
    assert (again.retired_at, again.lease) == (None, 2)


def daemon(boot: str = "b1", identity: str = "i1", host: str = "h1") -> Daemon:
    return Daemon(boot=boot, identity=identity, host=host, pid=7)


def lease(daemon: Daemon, seconds: float = 0, **more: Any) -> RegisterNode:
    return RegisterNode(node="n1", at=at(seconds), info=info(), daemon=daemon, **more)


RETURN = ReturnLease(node="n1", boot="b1", at=at(8))
SEED_URL = SetSeedUrl(node="n1", operation=uid(12), fingerprint="f", seed_url="http://192.0.2.9/", at=at(9))
LEASED = Story(node.decide, node.evolve, NEW.when(lease(daemon())).after)


def test_one_daemon_at_a_time_has_the_lease() -> None:
    LEASED.when(lease(daemon())).then_nothing()
    other = daemon("b2", "i2", "h2")
    LEASED.when(lease(other)).then_rejected("node_taken")
    LEASED.when(lease(other, heir=True)).then_rejected("node_taken")
    LEASED.when(lease(other, silence=Silence(lease=1, seconds=14))).then_rejected("node_taken")
    LEASED.when(lease(other, silence=Silence(lease=0, seconds=900))).then_rejected("node_taken")
    assert LEASED.when(lease(other, silence=Silence(lease=1, seconds=15))).then(NodeLeased).after.lease == 2
    returned = LEASED.when(RETURN).then(NodeLeaseReturned)
    assert returned.and_when(lease(other)).then(NodeLeased).after.lease == 2
    LEASED.when(ReturnLease(node="n1", boot="b2", at=at(8))).then_nothing()


def test_the_next_process_on_the_same_folder_takes_over_at_once_when_it_starts() -> None:
    LEASED.when(lease(daemon("b2"), heir=True)).then(NodeLeased)
    LEASED.when(lease(daemon("b2"), heir=False)).then_rejected("node_taken")


def test_a_daemon_on_another_folder_gets_no_node_that_has_vms() -> None:
    """It would find no disk, and every VM would fail."""
    busy = Story(node.decide, node.evolve, LEASED.when(reserve()).after)
    other, silent = daemon("b2", "i2", "h2"), Silence(lease=1, seconds=900)
    busy.when(lease(other, silence=silent)).then_rejected("node_elsewhere")
    returned = busy.when(RETURN)
    returned.and_when(lease(other, heir=True)).then_rejected("node_elsewhere")
    returned.and_when(lease(daemon("b2"), heir=True)).then(NodeLeased, lease=2)
    busy.when(lease(daemon("b2"), silence=silent)).then(NodeLeased, lease=2)
    busy.when(lease(other, take_over=True)).then_rejected("node_taken")
    taken = busy.when(lease(other, take_over=True, silence=silent)).then(NodeLeased, lease=2)
    taken.and_when(lease(daemon("b3"), heir=True)).then_rejected("node_taken")


def test_where_guests_find_their_data_is_the_operators_to_say() -> None:
    READY.when(register(seed_url="http://203.0.113.66/")).then_nothing()
    changed = READY.when(SEED_URL).then(SeedUrlSet)
    assert changed.and_when(register(seed_url="http://203.0.113.66/", vcpus=8)).after.info.seed_url == SEED_URL.seed_url


def test_it_speaks_for_itself_only() -> None:
    NEW.when(register(node="n2")).then_rejected("invalid_request", Category.INVALID)


def test_an_unknown_node_is_not_found() -> None:
    for command in (reserve(), Release(node="n1", vm=uid(1), at=at()), LOSE, RECOVER, cordon(), uncordon()):
        NEW.when(command).then_rejected("node_not_found", Category.NOT_FOUND)


def test_a_promise_is_made_once_and_given_back_once() -> None:
    done = READY.when(reserve()).then(CapacityReserved, vm=uid(1), resources=ONE)
    done.and_when(reserve()).then_nothing()
    both = done.and_when(reserve(2)).then(CapacityReserved)
    assert both.after.reserved() == Resources(vcpus=2, memory_mib=1024, disk_gib=8)
    back = both.and_when(Release(node="n1", vm=uid(1), at=at(9))).then(CapacityReleased)
    assert back.after.reservations == {uid(2): ONE}
    back.and_when(Release(node="n1", vm=uid(1), at=at(9))).then_nothing()


def test_what_it_promised_stays_promised_while_it_is_lost_or_says_something_new() -> None:
    done = READY.when(reserve())
    assert done.and_when(LOSE).after.reserved() == ONE
    assert done.and_when(register(vcpus=1)).after.reserved() == ONE


def test_it_is_lost_once_and_found_once() -> None:
    READY.when(RECOVER).then_nothing()
    lost = READY.when(LOSE).then(NodeLost, silent_seconds=31.5)
    lost.and_when(LOSE).then_nothing()
    assert lost.and_when(register(version="2")).after.lost, "only a sign of life finds it"
    found = lost.and_when(RECOVER).then(NodeRecovered)
    assert not found.after.lost


def test_a_cordon_is_an_operation() -> None:
    done = READY.when(cordon()).then(NodeCordoned, operation=uid(10))
    assert done.after.cordoned
    done.and_when(cordon()).then_nothing()
    done.and_when(cordon(fingerprint="other")).then_rejected("idempotency_key_reused", Category.INVALID)
    done.and_when(uncordon(10)).then_rejected("idempotency_key_reused", Category.INVALID)
    done.and_when(cordon(12)).then(NodeCordoned)
    assert not done.and_when(uncordon()).then(NodeUncordoned).after.cordoned


def test_a_promise_is_replaced_as_a_whole() -> None:
    more = Resources(vcpus=2, memory_mib=1024, disk_gib=8)
    change = node.ChangeReservation(node="n1", vm=uid(1), resources=more, at=at(2))
    READY.when(change).then_nothing()
    promised = Story(node.decide, node.evolve, READY.when(reserve()).after)
    changed = promised.when(change).then(CapacityReserved, vm=uid(1), resources=more)
    assert changed.after.reserved() == more
    changed.and_when(change).then_nothing()


class NodeMachine(RuleBasedStateMachine):
    """`books` keeps the promises as anybody would."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Node | None = None
        self.history: list[Event] = []
        self.books: dict[str, Resources] = {}

    def ask(self, command: Any) -> bool:
        """Whether it was accepted; asked twice, the second time means nothing."""
        try:
            events = node.decide(self.state, command)
        except Rejected:
            return False
        for event in events:
            assert stored(event) == event
            self.state = node.evolve(self.state, stored(event))
        self.history += events
        assert node.decide(self.state, command) == []
        return True

    @rule(vcpus=st.integers(1, 3))
    def says_what_it_is(self, vcpus: int) -> None:
        assert self.ask(RegisterNode(node="n1", at=at(), info=info(vcpus=vcpus), take_over=True))

    @rule(vm=st.integers(1, 4))
    def promises(self, vm: int) -> None:
        if self.ask(reserve(vm)):
            self.books.setdefault(uid(vm), ONE)

    @rule(vm=st.integers(1, 4), vcpus=st.integers(0, 3))
    def is_resized(self, vm: int, vcpus: int) -> None:
        size = Resources(vcpus=vcpus, memory_mib=vcpus * 7, disk_gib=8)
        changes = uid(vm) in self.books and self.state is not None and self.state.retired_at is None
        if self.ask(ChangeReservation(node="n1", vm=uid(vm), resources=size, at=at())) and changes:
            self.books[uid(vm)] = size

    @rule(vm=st.integers(1, 4))
    def gives_back(self, vm: int) -> None:
        if self.ask(Release(node="n1", vm=uid(vm), at=at())):
            self.books.pop(uid(vm), None)

    @rule(
        command=st.sampled_from([LOSE, RECOVER, cordon(1), cordon(2), uncordon(3), uncordon(4), uncordon(1), retire(5)])
    )
    def is_asked(self, command: Any) -> None:
        self.ask(command)

    @invariant()
    def the_books_are_right(self) -> None:
        assert (self.state.reservations if self.state else {}) == self.books
        total = self.state.reserved() if self.state else Resources()
        assert total == Resources(
            vcpus=sum(each.vcpus for each in self.books.values()),
            memory_mib=sum(each.memory_mib for each in self.books.values()),
            disk_gib=sum(each.disk_gib for each in self.books.values()),
        )

    @invariant()
    def a_stored_state_is_the_same(self) -> None:
        if self.state is not None:
            again = NODE.stored.validate_json(NODE.stored.dump_json(self.state))
            assert again == self.state and again.reserved() == self.state.reserved()

    @invariant()
    def a_state_that_names_only_the_vm_of_an_event_has_the_same_sum(self) -> None:
        if self.state is None:
            return
        kept = replace(self.state, reservations=self.state.reservations.unnamed())
        row = NODE.stored.validate_json(NODE.stored.dump_json(kept))
        assert row.reserved() == self.state.reserved() and row.reservations.vms == len(self.books)
        for vm in map(uid, range(3)):
            named = row.reservations.name(vm, self.books[vm]) if vm in self.books else row.reservations
            whole = self.state.reservations
            for one, other in ((named.discard(vm), whole.discard(vm)), (named.insert(vm, ONE), whole.insert(vm, ONE))):
                assert one.unnamed() == other.unnamed()

    @invariant()
    def the_history_tells_the_same(self) -> None:
        assert fold(node.evolve, self.history) == self.state


NodeMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestNodeMachine = NodeMachine.TestCase


def test_a_node_that_has_signed_has_to_sign_for_ever() -> None:
    daemons = [Daemon(boot=f"b{number}", identity="i", host="h", pid=1) for number in range(3)]

    def registers(number: int, *, signed: bool, latest: int | None = None) -> RegisterNode:
        more = {"daemon": daemons[number], "heir": True, "signed": signed, "keyed": True, "latest": latest}
        return register().model_copy(update=more)

    with pytest.raises(Rejected, match="has to sign"):
        node.decide(None, registers(0, signed=False))
    signs = fold(node.evolve, node.decide(None, registers(0, signed=True, latest=0)))
    assert signs is not None and signs.signs
    for command in (registers(1, signed=False), ReturnLease(node="n1", at=at(2), boot="b0")):
        with pytest.raises(Rejected, match="has to sign"):
            node.decide(signs, command)
    assert node.decide(signs, ReturnLease(node="n1", at=at(2), boot="b0", signed=True))
    with pytest.raises(Rejected, match="got the lease meanwhile"):
        node.decide(signs, registers(1, signed=True, latest=0))
    unsigned = NodeLeased(at=at(3), lease=2, boot="b1", identity="i", host="h", pid=1)
    assert (later := node.evolve(signs, unsigned)) is not None and later.signs


def test_a_node_of_an_earlier_log_does_not_sign_until_it_does() -> None:
    before = fold(node.evolve, node.decide(None, register()))
    daemon = Daemon(boot="b", identity="i", host="h", pid=1)
    assert before is not None and not before.signs
    unsigned = register().model_copy(update={"daemon": daemon, "keyed": True})
    assert [type(event) for event in node.decide(before, unsigned)] == [NodeLeased]
