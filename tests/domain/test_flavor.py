"""The life of a flavor."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from domain.base import Category, Rejected
from domain.flavor import (
    FLAVOR,
    ChangeFlavor,
    CreateFlavor,
    DeleteFlavor,
    DeprecateFlavor,
    Flavor,
    FlavorChanged,
    FlavorCreated,
    FlavorDeleted,
    FlavorDeletionBegun,
    FlavorDeletionGivenUp,
    FlavorDeprecated,
    FlavorRestored,
    RestoreFlavor,
    usable,
)
from domain.references import FinishDeletion, Reference, Users
from domain.vm import Spec
from tests.domain.story import Story, at, fold, stored, uid

NONE: Story[Flavor] = Story(FLAVOR.decide, FLAVOR.evolve, None)
SIZE = {"vcpus": 2, "memory_mib": 1024, "disk_gib": 10}


def ask(command: type[Any], operation: int = 20, **more: Any) -> Any:
    said = {"name": "Small", **SIZE} if command is CreateFlavor else {}
    return command(
        **{"flavor": "small", "operation": uid(operation), "fingerprint": "f", "at": at(operation), **said, **more}
    )


def finish(vms: int = 0) -> FinishDeletion:
    return FinishDeletion(id="small", at=at(40), users=Users(ids={"vm": tuple(map(str, range(vms)))}))


THERE = NONE.when(ask(CreateFlavor, 10))


def test_from_beginning_to_end() -> None:
    there = THERE.then(FlavorCreated, flavor="small", size=Spec(**SIZE)).after
    assert (there.id, there.size, there.deprecated) == ("small", Spec(**SIZE), False)
    renamed = THERE.and_when(ask(ChangeFlavor, name="S", labels={"a": "b"})).then(FlavorChanged).after
    assert (renamed.name, renamed.labels, renamed.description) == ("S", {"a": "b"}, None)
    old = THERE.and_when(ask(DeprecateFlavor)).then(FlavorDeprecated)
    assert old.after.deprecated
    assert not old.and_when(ask(RestoreFlavor, 21)).then(FlavorRestored).after.deprecated
    closing = old.and_when(ask(DeleteFlavor, 30)).then(FlavorDeletionBegun)
    assert closing.and_when(finish()).then(FlavorDeleted).after.deleted
    assert closing.and_when(finish(1)).then(FlavorDeletionGivenUp, code="flavor_in_use").after.closing is None


@pytest.mark.parametrize("command", [ChangeFlavor, DeprecateFlavor, RestoreFlavor, DeleteFlavor])
def test_what_is_not_there_or_no_more_is_refused(command: type[Any]) -> None:
    said: dict[str, Any] = {"name": "S"} if command is ChangeFlavor else {}
    NONE.when(ask(command, **said)).then_rejected("flavor_not_found", Category.NOT_FOUND)
    gone = THERE.and_when(ask(DeleteFlavor, 30)).and_when(finish())
    gone.and_when(ask(command, 31, **said)).then_rejected("flavor_deleted", Category.GONE)
    again = gone.and_when(ask(CreateFlavor, 32, vcpus=4)).then(FlavorCreated).after
    assert again.size.vcpus == 4 and uid(10) in again.operations


def test_refusals_say_what_helps() -> None:
    THERE.and_when(ask(CreateFlavor, 11)).then_rejected("flavor_exists")
    THERE.and_when(ask(ChangeFlavor)).then_rejected("invalid_request", Category.INVALID)
    used = THERE.and_when(ask(DeleteFlavor, users=Users(ids={"vm": ("a", "b")}))).then_rejected("flavor_in_use")
    assert "2 VMs" in used.detail and "deprecate" in used.detail
    closing = THERE.and_when(ask(DeleteFlavor, 30))
    closing.and_when(ask(ChangeFlavor, 31, name="S")).then_rejected("flavor_being_deleted")


@pytest.mark.parametrize(
    ("flavor", "project", "code"),
    [
        (None, "p", "flavor_not_found"),
        (THERE.after, "p", None),
        (THERE.and_when(ask(DeprecateFlavor)).after, "p", "flavor_deprecated"),
        (THERE.and_when(ask(DeleteFlavor)).after, "p", "flavor_being_deleted"),
        (THERE.and_when(ask(DeleteFlavor)).and_when(finish()).after, "p", "flavor_not_found"),
        (NONE.when(ask(CreateFlavor, 10, project="p")).after, "p", None),
        (NONE.when(ask(CreateFlavor, 10, project="p")).after, "q", "flavor_not_found"),
    ],
    ids=["none", "there", "deprecated", "closing", "deleted", "own", "of another"],
)
def test_who_may_use_it(flavor: Flavor | None, project: str, code: str | None) -> None:
    if code is None:
        assert usable(flavor, "small", project) is flavor
        return
    with pytest.raises(Rejected) as caught:
        usable(flavor, "small", project)
    assert (caught.value.code, caught.value.field) == (code, "flavor")


def test_one_of_a_project_keeps_the_project() -> None:
    assert FLAVOR.refers(THERE.after) == frozenset()
    own = NONE.when(ask(CreateFlavor, 10, project="p"))
    assert FLAVOR.refers(own.after) == {Reference("project", "p")}
    assert FLAVOR.refers(own.and_when(ask(DeleteFlavor)).and_when(finish()).after) == frozenset()


class FlavorMachine(RuleBasedStateMachine):
    """Any commands in any order: `decide` answers or refuses, and folding the history is stepping through it."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Flavor | None = None
        self.history: list[Any] = []

    @rule(
        command=st.sampled_from([CreateFlavor, ChangeFlavor, DeprecateFlavor, RestoreFlavor, DeleteFlavor]),
        operation=st.integers(1, 9),
        vms=st.integers(0, 1),
    )
    def is_asked(self, command: type[Any], operation: int, vms: int) -> None:
        more: dict[str, Any] = {"name": "N"} if command is ChangeFlavor else {}
        if command is DeleteFlavor:
            more = {"users": finish(vms).users}
        self.take(ask(command, operation, **more))

    @rule(vms=st.integers(0, 1))
    def is_finished(self, vms: int) -> None:
        self.take(finish(vms))

    def take(self, command: Any) -> None:
        try:
            events = FLAVOR.decide(self.state, command)
        except Rejected as refusal:
            assert refusal.category is not Category.UNAVAILABLE
            return
        for event in events:
            self.state = FLAVOR.evolve(self.state, event)
        self.history += events

    @invariant()
    def its_history_is_it(self) -> None:
        assert fold(FLAVOR.evolve, [stored(event) for event in self.history]) == self.state

    @invariant()
    def a_size_never_changes(self) -> None:
        created = [event for event in self.history if isinstance(event, FlavorCreated)]
        assert self.state is None or self.state.size == created[-1].size


TestFlavorMachine = FlavorMachine.TestCase
