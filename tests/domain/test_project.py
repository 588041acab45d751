"""Projects and tags: two small lives of the same shape."""

from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydantic import ValidationError

from domain import project, tag
from domain.base import Category, Event, Rejected
from domain.named import Named, OperationCommand, OperationDone
from domain.project import (
    ChangeProject,
    CreateProject,
    DeleteProject,
    Project,
    ProjectCreated,
    ProjectDeleted,
    ProjectDeletionBegun,
    ProjectDeletionGivenUp,
    ProjectRenamed,
    ProjectSshKeysChanged,
    ProjectTagged,
)
from domain.references import FinishDeletion, Users
from domain.tag import (
    CreateTag,
    DeleteTag,
    RenameTag,
    TagCreated,
    TagDeleted,
    TagDeletionBegun,
    TagDeletionGivenUp,
    TagRenamed,
)
from tests.domain.story import Story, at, fold, refused, stored, uid

NO_PROJECT: Story[Project] = Story(project.decide, project.evolve, None)
NO_TAG: Story[Named] = Story(tag.decide, tag.evolve, None)
DELETIONS: tuple[type[OperationCommand], ...] = (DeleteProject, DeleteTag)


def ask(command: type[Any], operation: int = 20, **more: Any) -> Any:
    key = {"project": "p"} if issubclass(command, project.ProjectCommand) else {"tag": "web"}
    return command(**{**key, "operation": uid(operation), "fingerprint": "f", "at": at(operation), **more})


PROJECT = NO_PROJECT.when(ask(CreateProject, 10, name="Default", tags=("a",)))
TAG = NO_TAG.when(ask(CreateTag, 10, name="Web"))


def test_a_project_from_beginning_to_end() -> None:
    assert PROJECT.then(ProjectCreated, project="p", tags=("a",)).after.name == "Default"
    renamed = PROJECT.and_when(ask(ChangeProject, name="Other")).then(ProjectRenamed).after
    assert (renamed.id, renamed.name, renamed.tags) == ("p", "Other", ("a",))
    assert PROJECT.and_when(ask(ChangeProject, tags=())).then(ProjectTagged).after.tags == ()
    both = PROJECT.and_when(ask(ChangeProject, name="Other", tags=("b",)))
    both.then(ProjectRenamed, ProjectTagged)
    both.and_when(ask(ChangeProject, name="Other", tags=("b",))).then_nothing()
    PROJECT.and_when(ask(DeleteProject, users=users_of(vms=3))).then_rejected("project_not_empty")
    closing = PROJECT.and_when(ask(DeleteProject)).then(ProjectDeletionBegun)
    assert not closing.after.deleted
    assert closing.and_when(FinishDeletion(id="p", at=at(30))).then(ProjectDeleted).after.deleted


def test_a_projects_ssh_keys() -> None:
    assert PROJECT.after.ssh_keys == ()
    made = NO_PROJECT.when(ask(CreateProject, 10, name="P", ssh_keys=("one", "two", "one")))
    assert made.then(ProjectCreated).after.ssh_keys == ("one", "two")
    changed = made.and_when(ask(ChangeProject, ssh_keys=("three",))).then(ProjectSshKeysChanged)
    assert (changed.after.ssh_keys, changed.after.name) == (("three",), "P")
    assert changed.after.updated_at == at(20)
    assert made.and_when(ask(ChangeProject, ssh_keys=())).then(ProjectSshKeysChanged).after.ssh_keys == ()
    all_ = ask(ChangeProject, name="Q", tags=("t",), ssh_keys=("x",))
    made.and_when(all_).then(ProjectRenamed, ProjectTagged, ProjectSshKeysChanged)


def test_a_change_changes_something() -> None:
    PROJECT.and_when(ask(ChangeProject)).then_rejected("invalid_request", Category.INVALID)


def test_a_tag_from_beginning_to_end() -> None:
    assert TAG.then(TagCreated, tag="web").after.name == "Web"
    assert TAG.and_when(ask(RenameTag, name="WWW")).then(TagRenamed).after.name == "WWW"
    TAG.and_when(ask(DeleteTag, users=users_of(vms=1))).then_rejected("tag_in_use")
    TAG.and_when(ask(DeleteTag, users=users_of(projects=1))).then_rejected("tag_in_use")
    closing = TAG.and_when(ask(DeleteTag)).then(TagDeletionBegun)
    assert not closing.after.deleted
    assert closing.and_when(FinishDeletion(id="web", at=at(30))).then(TagDeleted).after.deleted


def finish(kind: str, **users: Any) -> Any:
    return FinishDeletion(id="p" if kind == "project" else "web", at=at(30), users=users_of(**users))


def users_of(vms: int = 0, projects: int = 0, images: tuple[str, ...] = ()) -> Users:
    return Users(ids={"vm": tuple(map(str, range(vms))), "project": tuple(map(str, range(projects))), "image": images})


BOTH = [
    (NO_PROJECT, PROJECT, ask(CreateProject, 30, name="N"), ask(DeleteProject), ask(ChangeProject, 21, name="N")),
    (NO_TAG, TAG, ask(CreateTag, 30, name="N"), ask(DeleteTag), ask(RenameTag, 21, name="N")),
]
both = pytest.mark.parametrize(("none", "made", "create", "delete", "change"), BOTH, ids=["project", "tag"])


@both
def test_nothing_is_taken_while_a_deletion_is_not_decided(
    none: Any, made: Any, create: Any, delete: Any, change: Any
) -> None:
    kind = "project" if none is NO_PROJECT else "tag"
    closing = made.and_when(delete)
    for command in (create, change, delete.model_copy(update={"operation": uid(40)})):
        closing.and_when(command).then_rejected(f"{kind}_being_deleted")
    closing.and_when(delete).then_nothing()
    closing.and_when(delete.model_copy(update={"fingerprint": "g"})).then_rejected(
        "idempotency_key_reused", Category.INVALID
    )
    usable: Any = project.usable if kind == "project" else tag.usable
    assert usable(made.after, "x") == made.after
    assert refused(lambda: usable(closing.after, "x")).code == f"{kind}_being_deleted"
    for gone in (None, closing.and_when(finish(kind)).after):
        assert refused(lambda: usable(gone, "x")).code == f"{kind}_not_found"  # noqa: B023


@both
def test_a_deletion_is_given_up_where_it_was_in_use(
    none: Any, made: Any, create: Any, delete: Any, change: Any
) -> None:
    kind = "project" if none is NO_PROJECT else "tag"
    given_up = made.and_when(delete).and_when(finish(kind, vms=2))
    given_up.then(ProjectDeletionGivenUp if kind == "project" else TagDeletionGivenUp)
    assert given_up.after == made.after, "as if nobody had asked"
    given_up.and_when(finish(kind)).then_nothing()
    given_up.and_when(delete).then(ProjectDeletionBegun if kind == "project" else TagDeletionBegun)


def test_images_and_projects_count_too() -> None:
    PROJECT.and_when(ask(DeleteProject, users=users_of(images=("i",)))).then_rejected("project_not_empty")
    PROJECT.and_when(ask(DeleteProject)).and_when(finish("project", images=("i",))).then(ProjectDeletionGivenUp)
    TAG.and_when(ask(DeleteTag)).and_when(finish("tag", projects=1)).then(TagDeletionGivenUp)


def test_a_project_does_not_inherit_vms() -> None:
    gone = PROJECT.and_when(ask(DeleteProject)).and_when(finish("project"))
    gone.and_when(ask(CreateProject, 30, name="P", users=users_of(vms=1))).then_rejected("project_not_empty")
    gone.and_when(ask(CreateProject, 30, name="P")).then(ProjectCreated)


@both
def test_what_both_have_in_common(none: Any, made: Any, create: Any, delete: Any, change: Any) -> None:
    kind = "project" if none is NO_PROJECT else "tag"
    none.when(change).then_rejected(f"{kind}_not_found", Category.NOT_FOUND)
    none.when(delete).then_rejected(f"{kind}_not_found", Category.NOT_FOUND)
    made.and_when(create).then_rejected(f"{kind}_exists")

    changed = made.and_when(change)
    changed.and_when(change).then_nothing()
    changed.and_when(change.model_copy(update={"fingerprint": "g"})).then_rejected(
        "idempotency_key_reused", Category.INVALID
    )

    deleted = made.and_when(delete).and_when(finish(kind))
    deleted.and_when(delete).then_nothing()
    deleted.and_when(change).then_rejected(f"{kind}_deleted", Category.GONE)
    deleted.and_when(delete.model_copy(update={"operation": uid(40)})).then_rejected(f"{kind}_deleted", Category.GONE)

    again = deleted.and_when(create)
    assert not again.after.deleted
    assert uid(10) in again.after.operations, "what was asked before is remembered"
    again.and_when(delete).then_nothing()


def test_the_id_of_the_platform_itself_is_reserved() -> None:
    NO_PROJECT.when(ask(CreateProject, project="system", name="S")).then_rejected("reserved_id", Category.INVALID)


@pytest.mark.parametrize("bad", ["", "A", "a.b", "a*", "a b", "-a", "a-", "a\n", "x" * 64, "é"])
def test_an_id_is_one_subject_token(bad: str) -> None:
    with pytest.raises(ValidationError):
        ask(CreateProject, project=bad, name="N")
    with pytest.raises(ValidationError):
        ask(CreateProject, name="N", tags=(bad,))


class NamedMachine(RuleBasedStateMachine):
    """A project and a tag side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, Named | None] = {"project": None, "tag": None}
        self.histories: dict[str, list[Event]] = {"project": [], "tag": []}
        self.evolves: dict[str, Any] = {"project": project.evolve, "tag": tag.evolve}

    def ask(self, command: Any) -> None:
        kind = "project" if hasattr(command, "project") else "tag"
        decide: Any = project.decide if kind == "project" else tag.decide
        try:
            events = decide(self.states[kind], command)
        except Rejected:
            return
        for event in events:
            assert stored(event) == event
            self.states[kind] = self.evolves[kind](self.states[kind], stored(event))
        self.histories[kind] += events
        assert decide(self.states[kind], command) == []

    @rule(command=st.sampled_from([CreateProject, CreateTag]), operation=st.integers(1, 9))
    def is_created(self, command: type[Any], operation: int) -> None:
        self.ask(ask(command, operation, name="N"))

    @rule(
        operation=st.integers(1, 9),
        name=st.sampled_from([None, "One", "Two"]),
        tags=st.sampled_from([None, (), ("a", "b")]),
    )
    def project_is_changed(self, operation: int, name: str | None, tags: tuple[str, ...] | None) -> None:
        self.ask(ask(ChangeProject, operation, name=name, tags=tags))

    @rule(operation=st.integers(1, 9))
    def tag_is_renamed(self, operation: int) -> None:
        self.ask(ask(RenameTag, operation, name="Two"))

    @rule(command=st.sampled_from(DELETIONS), operation=st.integers(1, 9), vms=st.integers(0, 1))
    def is_deleted(self, command: type[Any], operation: int, vms: int) -> None:
        self.ask(ask(command, operation, users=users_of(vms=vms)))

    @rule(kind=st.sampled_from(["project", "tag"]), vms=st.integers(0, 1))
    def is_finished(self, kind: str, vms: int) -> None:
        self.ask(finish(kind, vms=vms))

    @invariant()
    def the_history_tells_the_same(self) -> None:
        for kind, history in self.histories.items():
            assert fold(self.evolves[kind], history) == self.states[kind]

    @invariant()
    def no_operation_is_forgotten(self) -> None:
        for kind, history in self.histories.items():
            state = self.states[kind]
            done = {event.operation for event in history if isinstance(event, OperationDone)}
            assert done == set(state.operations if state else ())


NamedMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestNamedMachine = NamedMachine.TestCase
