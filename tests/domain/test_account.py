"""Users and service accounts: one life, two kinds; and who is a member of a project."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydantic import ValidationError

from domain import project, service_account, user
from domain.access import RESERVED, Access, Grant, Role
from domain.account import Account, Create
from domain.base import Category, Event, Rejected
from domain.kinds import KINDS
from domain.principal import sort_of
from domain.project import BindRole, CreateProject, Project, ProjectRoleBound, ProjectRoleUnbound, UnbindRole
from domain.references import FinishDeletion, Reference, Users, account_of
from domain.verb import Verb
from tests.domain.story import Story, at, fold, refused, stored, uid
from tests.domain.test_project import ask as ask_project

SORTS = {"user": user, "service_account": service_account}


def verb_of(kind: str, name: str) -> Verb[Any]:
    return next(verb for verb in KINDS[kind].verbs if verb.name == name)


def ask(kind: str, verb: str, operation: int = 20, **more: Any) -> Any:
    if verb == "create":
        more = {"name": "Ada", **more}
    command = verb_of(kind, verb).command
    return command(**{kind: "ada", "operation": uid(operation), "fingerprint": "f", "at": at(operation), **more})


def finish(projects: int = 0) -> FinishDeletion:
    return FinishDeletion(id="ada", at=at(40), users=Users(ids={"project": tuple(f"p{n}" for n in range(projects))}))


def life(kind: str) -> list[Any]:
    """Commands that lead through all events of a kind of account."""
    return [
        ask(kind, "create", 10),
        ask(kind, "change", 11, name="Ada Lovelace"),
        ask(kind, "bind", 12, role=Role.OPERATOR),
        ask(kind, "bind", 13, role=Role.AUDITOR),
        ask(kind, "unbind", 14, role=Role.OPERATOR),
        ask(kind, "disable", 15),
        ask(kind, "enable", 16),
        ask(kind, "delete", 17),
        finish(1),
        ask(kind, "delete", 18),
        finish(),
        ask(kind, "create", 19),
    ]


def there(kind: str) -> Any:
    none: Story[Account] = Story(KINDS[kind].decide, KINDS[kind].evolve, None)
    return none.when(ask(kind, "create", 10))


@pytest.mark.parametrize("kind", SORTS)
def test_from_beginning_to_end(kind: str) -> None:
    made = there(kind)
    assert (made.after.id, made.after.name, made.after.roles, made.after.incarnation) == ("ada", "Ada", (), uid(10))
    assert made.and_when(ask(kind, "change", name="A")).after.name == "A"
    assert made.and_when(ask(kind, "disable")).after.disabled
    assert not made.and_when(ask(kind, "disable")).and_when(ask(kind, "enable", 21)).after.disabled
    both = made.and_when(ask(kind, "bind", role=Role.OPERATOR)).and_when(ask(kind, "bind", 21, role=Role.AUDITOR))
    assert both.after.roles == (Role.AUDITOR, Role.OPERATOR)
    assert both.and_when(ask(kind, "unbind", 22, role=Role.AUDITOR)).after.roles == (Role.OPERATOR,)
    made.and_when(ask(kind, "unbind", role=Role.OPERATOR)).then_rejected("not_bound")
    made.and_when(ask(kind, "create", 21)).then_rejected(f"{kind}_exists")
    made.and_when(ask(kind, "change")).then_rejected("invalid_request", Category.INVALID)


@pytest.mark.parametrize("kind", SORTS)
@pytest.mark.parametrize("verb", ["change", "disable", "enable", "bind", "unbind", "delete"])
def test_a_repeat_changes_nothing_and_nothing_happens_to_none(kind: str, verb: str) -> None:
    given = {"name": "B"} if verb == "change" else {"role": Role.AUDITOR} if "bind" in verb else {}
    command = ask(kind, verb, **given)
    made = there(kind).and_when(ask(kind, "bind", 11, role=Role.AUDITOR))
    made.and_when(command).and_when(command).then_nothing()
    none: Story[Account] = Story(KINDS[kind].decide, KINDS[kind].evolve, None)
    error = none.when(command).then_rejected(f"{kind}_not_found", Category.NOT_FOUND)
    assert "ada" in error.detail
    deleted = there(kind).and_when(ask(kind, "delete", 11)).and_when(finish())
    deleted.and_when(command).then_rejected(f"{kind}_deleted", Category.GONE)


@pytest.mark.parametrize("kind", SORTS)
def test_a_member_is_not_deleted_and_the_text_says_of_what(kind: str) -> None:
    made = there(kind)
    error = made.and_when(ask(kind, "delete", users=finish(2).users)).then_rejected(f"{kind}_in_use")
    assert "(p0, p1)" in error.detail
    many = made.and_when(ask(kind, "delete", users=finish(11).users)).then_rejected(f"{kind}_in_use")
    assert "11 projects" in many.detail
    assert "p10" not in many.detail
    assert "…" in many.detail
    closing = made.and_when(ask(kind, "delete"))
    assert closing.and_when(finish(1)).and_when(ask(kind, "disable", 30)).after.disabled
    closing.and_when(ask(kind, "bind", 30, role=Role.AUDITOR)).then_rejected(f"{kind}_being_deleted")
    again = closing.and_when(finish()).and_when(ask(kind, "create", 31)).after
    assert (again.incarnation, again.roles, again.disabled) == (uid(31), (), False)


@pytest.mark.parametrize("kind", SORTS)
def test_only_cloud_roles_are_bound_to_an_account(kind: str) -> None:
    for role in (Role.VIEWER, Role.MEMBER, Role.ADMIN):
        with pytest.raises(ValidationError):
            ask(kind, "bind", role=role)


@pytest.mark.parametrize("kind", SORTS)
def test_nobody_gives_a_cloud_role_that_they_lack(kind: str) -> None:
    admit = verb_of(kind, "bind").admit
    operator, auditor = Access("a", frozenset([Grant(Role.OPERATOR)])), Access("b", frozenset([Grant(Role.AUDITOR)]))
    for role in (Role.OPERATOR, Role.AUDITOR):
        assert admit(operator, ask(kind, "bind", role=role), None).role is role
    assert admit(auditor, ask(kind, "bind", role=Role.AUDITOR), None)
    for access in (auditor, Access("c"), Access("d", frozenset([Grant(Role.OPERATOR)]), read_only=True)):
        error = refused(lambda access=access: admit(access, ask(kind, "bind", role=Role.OPERATOR), None))  # type: ignore[misc]
        assert (error.code, error.category) == ("forbidden", Category.FORBIDDEN)


PROJECT: Any = (
    Story[Project](project.decide, project.evolve, None)
    .when(ask_project(CreateProject, 10, name="P"))
    .and_when(ask_project(BindRole, 11, principal="user:ada", role=Role.ADMIN))
)


def test_the_creator_is_the_first_admin() -> None:
    """Readers fill in `created_by` with the actor in the event's header."""

    def members(actor: str | None) -> dict[str, Role]:
        [event] = project.decide(None, ask_project(CreateProject, 10, name="P", created_by=actor))
        made = project.evolve(None, event)
        assert made is not None
        return made.members

    for actor in ("user:ada", "service:ci", "oidc:https://issuer.example#7"):
        assert members(actor) == {actor: Role.ADMIN}
    for none in ("admin", "local", "system:x", "node:n1", "user:", None):
        assert members(none) == {}


def test_members_of_a_project() -> None:
    bound = PROJECT.and_when(ask_project(BindRole, 21, principal="service:ci", role=Role.VIEWER)).then(ProjectRoleBound)
    assert bound.after.members == {"service:ci": Role.VIEWER, "user:ada": Role.ADMIN}
    again = bound.and_when(ask_project(BindRole, 22, principal="service:ci", role=Role.ADMIN))
    assert again.after.members["service:ci"] is Role.ADMIN
    left = again.and_when(ask_project(UnbindRole, 23, principal="user:ada")).then(ProjectRoleUnbound)
    assert left.after.members == {"service:ci": Role.ADMIN}
    left.and_when(ask_project(UnbindRole, 24, principal="user:ada")).then_rejected("not_bound")


def test_a_project_refers_to_its_members_that_are_resources() -> None:
    oidc = PROJECT.and_when(ask_project(BindRole, 21, principal="oidc:7", role=Role.VIEWER))
    state = oidc.and_when(ask_project(BindRole, 22, principal="service:ci", role=Role.VIEWER)).after
    assert project.refers(state) == {Reference("user", "ada"), Reference("service_account", "ci")}


def test_a_new_project_of_the_same_id_has_none_of_the_old_members() -> None:
    deleted = PROJECT.and_when(ask_project(project.DeleteProject, 21)).and_when(
        FinishDeletion(id="p", at=at(30), users=Users())
    )
    assert project.refers(deleted.after) == frozenset()
    assert deleted.and_when(ask_project(CreateProject, 31, name="P")).after.members == {}


def test_a_project_has_a_limited_number_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project.rules, "MOST_MEMBERS", 2)
    two = PROJECT.and_when(ask_project(BindRole, 21, principal="user:b", role=Role.VIEWER))
    two.and_when(ask_project(BindRole, 22, principal="user:c", role=Role.VIEWER)).then_rejected("too_many_members")
    two.and_when(ask_project(BindRole, 22, principal="user:b", role=Role.ADMIN)).then(ProjectRoleBound)


BAD = [
    *(f"{sort}:x" for sort in RESERVED),
    *("admin", "", "user:", "user:A", "user:a.b", "user:-a", "service:", "service:a b", "oidc:", "oidc:a b", "oidc:é"),
    *("oidc:" + "x" * 251, "user:" + "a" * 64, "user:a\n", "User:a", "group:x", "user:a:b", ":a", "users:a"),
]


@pytest.mark.parametrize("principal", BAD)
@pytest.mark.parametrize("command", [BindRole, UnbindRole])
def test_names_that_no_principal_has_are_refused(command: type[Any], principal: str) -> None:
    with pytest.raises(ValidationError):
        ask_project(command, 21, principal=principal, **({"role": Role.VIEWER} if command is BindRole else {}))


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR])
def test_only_roles_of_projects_are_bound_in_a_project(role: Role) -> None:
    with pytest.raises(ValidationError):
        ask_project(BindRole, 21, principal="user:b", role=role)


def test_nobody_gives_a_role_in_a_project_that_they_lack() -> None:
    admit = verb_of("project", "bind").admit
    for role in (Role.VIEWER, Role.MEMBER, Role.ADMIN):
        command = ask_project(BindRole, 21, principal="user:b", role=role)
        assert admit(Access("x", frozenset([Grant(Role.ADMIN, "p")])), command, None) is command
        for access in (Access("x", frozenset([Grant(Role.ADMIN, "q")])), Access("x"), Access("x", read_only=True)):
            assert refused(lambda access=access: admit(access, command, None)).code == "forbidden"  # type: ignore[misc]  # noqa: B023
    member = Access("x", frozenset([Grant(Role.MEMBER, "p")]))
    assert refused(lambda: admit(member, command, None)).category is Category.FORBIDDEN


def test_sorts() -> None:
    assert [sort_of(name) for name in ("user:a", "admin", "oidc:a:b")] == ["user", None, "oidc"]
    assert account_of("service:ci") == Reference("service_account", "ci")
    assert [account_of(name) for name in ("oidc:x", "admin", "user:", "node:n1")] == [None] * 4


@pytest.mark.parametrize("kind", SORTS)
def test_who_may_get_a_role(kind: str) -> None:
    made, of = there(kind), KINDS[kind].usable
    assert of is not None
    assert of(made.after, "ada", "p") == made.after
    assert of(made.and_when(ask(kind, "disable")).after, "ada", "p").disabled
    for state in (None, made.and_when(ask(kind, "delete")).and_when(finish()).after):
        assert refused(lambda state=state: of(state, "ada", "p")).code == f"{kind}_not_found"  # type: ignore[misc]
    assert refused(lambda: of(made.and_when(ask(kind, "delete")).after, "ada", "p")).code.endswith("_being_deleted")


class Lives(RuleBasedStateMachine):
    """Any sequence of commands: `decide` never crashes, and the state is what the events fold into."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Account | None = None
        self.events: list[Event] = []
        self.count = 10

    @rule(verb=st.sampled_from([verb.name for verb in KINDS["user"].verbs]), data=st.data())
    def command(self, verb: str, data: st.DataObject) -> None:
        self.count += 1
        given: dict[str, Any] = {"role": data.draw(st.sampled_from([Role.AUDITOR, Role.OPERATOR]))}
        if verb == "change":
            given = {"name": data.draw(st.sampled_from([None, "B"]))}
        self._do(ask("user", verb, self.count, **(given if verb in ("bind", "unbind", "change") else {})))

    @rule(projects=st.integers(0, 1))
    def finish(self, projects: int) -> None:
        self._do(finish(projects))

    def _do(self, command: Any) -> None:
        try:
            events = KINDS["user"].decide(self.state, command)
        except Rejected:
            return
        for event in events:
            self.events.append(event)
            self.state = KINDS["user"].evolve(self.state, stored(event))

    @invariant()
    def folds(self) -> None:
        assert fold(KINDS["user"].evolve, self.events) == self.state


TestLives = Lives.TestCase


def test_commands_name_their_account() -> None:
    for kind in SORTS:
        assert ask(kind, "create").account == "ada"
    with pytest.raises(NotImplementedError):
        _ = Create(name="x", operation=uid(1), fingerprint="f", at=at(0)).account
