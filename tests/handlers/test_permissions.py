"""Handlers check each command's caller, whatever the sender has checked. On real handlers, over the bus.

The matrix is made from the kinds, their verbs and the roles: new ones join by themselves.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.access import CLOUD_ROLES, OPEN, PLATFORM, PROJECT_READ, RESERVED, SELF_EDIT, Access, Grant, Role
from domain.kind import Kind, Scope, nobody
from domain.kinds import KINDS
from domain.verb import Effect, Verb
from handlers.commands.permissions import FRESH
from runtime import subjects
from runtime.bus.streams import ensure_all
from tests.handlers.accounts import OTHER, OWN, Resources, User, ask, furnish, issue, token_id, unique, user
from tests.handlers.platform import WriteSide, write_side

VERBS = [(kind, verb) for kind in KINDS.values() for verb in kind.verbs]
ROLES: tuple[Role | None, ...] = (None, *Role)


@pytest.fixture(scope="module")
async def side(servers_home: Path) -> AsyncIterator[WriteSide]:
    """Two handlers processes: each command may come to either."""
    home = servers_home / "permissions"
    home.mkdir()
    async with write_side(home) as made:
        await ensure_all(made.nc.jetstream(), 1)
        await made.start()
        await made.start()
        yield made


@pytest.fixture(scope="module")
async def resources(side: WriteSide) -> Resources:
    return await furnish(side)


@pytest.fixture(scope="module")
async def users(side: WriteSide, resources: Resources) -> dict[Role | None, User]:
    return {role: await user(side, f"u-{role or 'none'}".lower(), role) for role in ROLES}


def access(role: Role | None, project: str = OWN) -> Access:
    """What a user with one role may do, by the table of roles."""
    grants = [] if role is None else [Grant(role, None if role in CLOUD_ROLES else project)]
    return Access("x", frozenset(grants))


Target = tuple[str | None, str, dict[str, Any]]


async def refusal(
    side: WriteSide, who: User, project: str, kind: str, verb: str, args: dict[str, Any], **more: Any
) -> tuple[int, str, str]:
    answer = await ask(side, who, project, kind, verb, args, **more)
    problem = answer.get("problem", {"status": 200, "code": "ok", "detail": ""})
    return problem["status"], problem["code"], problem["detail"]


#: What no command has: what is allowed is refused for this, and changes nothing.
STRANGE = {"no_such_argument": 1}


def targets(kind: Kind[Any, Any], verb: Verb[Any], resources: Resources) -> list[Target]:
    """Where a verb is tried: the project of the permission (None: the cloud), the subject's project, the arguments."""
    if verb.effect is Effect.CREATES:
        new = str(uuid.uuid4()) if kind.id.value == "uuid" else token_id()
        if kind.scope is Scope.PROJECT:
            return [(project, project, {kind.name: new}) for project in (OWN, OTHER, "nosuch")]
        if kind.scope is Scope.ITSELF:
            return [(new, new, {kind.name: new})]
        owned: list[str | None] = [None] if kind.owner is nobody else [None, OWN, OTHER, "nosuch"]
        return [(at, subjects.SYSTEM, {kind.name: new, **({"project": at} if at else {})}) for at in owned]
    found = resources.of(kind.name)
    assert found, f"accounts.furnish makes no {kind.name}"
    return [(project, kind.project_of(project or "", id_), {kind.name: id_}) for project, id_ in found]


def judged(may: Access, kind: Kind[Any, Any], verb: Verb[Any], project: str | None) -> str:
    """What has to become of it: `allowed`, `forbidden` or `hidden`."""
    needed = verb.permission
    if needed == OPEN or (needed != PLATFORM and may.may(needed, project)):
        return "allowed"
    if needed == SELF_EDIT:
        return "forbidden"
    if verb.effect is not Effect.CREATES:
        return "forbidden" if may.may(kind.readable_by, project) else "hidden"
    if kind.scope is Scope.ITSELF or project is None or may.may(PROJECT_READ, project):
        return "forbidden"
    return "hidden"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: str(role or "none"))
async def test_every_verb_for_every_role(
    side: WriteSide, resources: Resources, users: dict[Role | None, User], role: Role | None
) -> None:
    """In the user's own project, in another one, and outside of projects."""
    seen = set()
    for kind, verb in VERBS:
        for project, subject, args in targets(kind, verb, resources):
            expected = judged(access(role), kind, verb, project)
            status, code, detail = await refusal(side, users[role], subject, kind.name, verb.name, args | STRANGE)
            where = (kind.name, verb.name, project, status, code, detail)
            seen.add(expected)
            match expected:
                case "allowed":
                    assert status == 422 or (project == "nosuch" and code == "project_not_found"), where
                    assert project == "nosuch" or code != "project_not_found", where
                case "forbidden":
                    assert (status, code) == (403, "forbidden"), where
                    assert "role" in detail or verb.permission == PLATFORM, where
                case _:
                    missing = {f"{kind.name}_not_found"} if verb.effect is not Effect.CREATES else {"project_not_found"}
                    assert status in (404, 422) and code in missing, where
    assert "allowed" in seen
    assert ("hidden" in seen) == (role not in CLOUD_ROLES)


async def test_a_role_that_the_refusal_names_is_enough(side: WriteSide, resources: Resources) -> None:
    """As in the text: whoever gets that role may do it then."""
    for kind, verb in VERBS:
        for project, subject, args in targets(kind, verb, resources):
            if project == "nosuch" or judged(access(Role.VIEWER), kind, verb, project) != "forbidden":
                continue
            if verb.permission == PLATFORM:
                continue
            who = User("somebody", None)
            weak = await refusal(
                side, who, subject, kind.name, verb.name, args | STRANGE, grants=[["viewer", OWN], ["viewer", OTHER]]
            )
            assert weak[1] == "forbidden", (kind.name, verb.name, weak)
            named = weak[2].split("the role ")[1].split(" ")[0].rstrip(";,.")
            grant = [named, None if Role(named) in CLOUD_ROLES else project]
            strong = await refusal(side, who, subject, kind.name, verb.name, args | STRANGE, grants=[grant])
            assert strong[0] == 422, (kind.name, verb.name, grant, strong)


async def test_what_one_may_not_see_is_refused_as_if_it_were_not_there(
    side: WriteSide, resources: Resources, users: dict[Role | None, User]
) -> None:
    for kind, verb in VERBS:
        if verb.effect is Effect.CREATES or verb.permission in (OPEN, PLATFORM, SELF_EDIT):
            continue
        for project, subject, args in targets(kind, verb, resources):
            for role in (None, Role.ADMIN):
                if judged(access(role), kind, verb, project) != "hidden":
                    continue
                id_ = args[kind.name]
                absent = str(uuid.uuid4()) if kind.id.value == "uuid" else token_id()
                at = absent if kind.scope is Scope.ITSELF else subject
                hidden = await ask(side, users[role], subject, kind.name, verb.name, args)
                none = await ask(side, users[role], at, kind.name, verb.name, {kind.name: absent})
                truly = await side.ask(at, kind.name, verb.name, {kind.name: absent})
                assert "problem" in hidden
                assert str(hidden).replace(id_, absent) == str(none), (kind.name, verb.name)
                if truly["problem"]["status"] == 404:  # else the operator is first told that an argument is missing
                    assert truly == none, (kind.name, verb.name)


# ── who a caller is ─────────────────────────────────────────────────────────────────────────────────────────────────


async def lose(side: WriteSide, *command: Any) -> None:
    """Take something away, and wait until that has to count in every process."""
    await side.ok(*command)
    await asyncio.sleep(FRESH)


def create(project: str = OWN) -> tuple[str, str, str, dict[str, Any]]:
    """A command that a member may give in a project."""
    spec = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}
    args = {"vm": str(uuid.uuid4()), "name": "web", "image": "base", "spec": spec}
    return project, "vm", "create", args


@pytest.mark.parametrize("sort", [*RESERVED, "group", "", "User", "services"])
async def test_parts_of_the_platform_and_unknown_sorts_do_nothing_of_callers(
    side: WriteSide, resources: Resources, sort: str
) -> None:
    """Whatever the sender vouches for."""
    for kind, verb in VERBS:
        if verb.permission in (OPEN, PLATFORM):
            continue
        for _, subject, args in targets(kind, verb, resources):
            who = User(f"{sort}:x", None)
            status, code, _ = await refusal(
                side, who, subject, kind.name, verb.name, args | STRANGE, grants=[["operator", None]]
            )
            assert (status, code) in ((403, "forbidden"), (401, "unauthorized")), (kind.name, verb.name)


async def test_only_parts_of_the_platform_give_its_commands(
    side: WriteSide, resources: Resources, users: dict[Role | None, User]
) -> None:
    vm = dict(resources.of("vm"))[OWN]
    args = {"vm": vm, "hostname": "web", **STRANGE}
    for actor, expected in (
        *((f"guest:{vm}", 422), ("system:projections", 422), (f"guest:{uuid.uuid4()}", 403)),
        *((f"node:{vm}", 403), ("node:host-1", 403), ("guest:", 403)),
    ):
        assert (await refusal(side, User(actor, None), OWN, "vm", "guest-ready", args))[0] == expected, actor
    assert (await refusal(side, users[Role.OPERATOR], OWN, "vm", "guest-ready", args))[1] == "forbidden"
    static = await refusal(side, User("admin", None), OWN, "vm", "guest-ready", args, grants=[["operator", None]])
    assert static[1] == "forbidden"


async def test_nobody_vouches_for_users(side: WriteSide, users: dict[Role | None, User]) -> None:
    grants = [["operator", None], ["admin", OWN]]
    assert (await refusal(side, users[None], *create(), grants=grants))[0] == 404
    assert (await refusal(side, users[Role.VIEWER], *create(), grants=grants))[1] == "forbidden"
    assert (await refusal(side, users[Role.MEMBER], *create(), read_only=True))[1] == "ok"


async def test_static_and_issued_principals_may_do_what_the_sender_vouches_for(side: WriteSide) -> None:
    for name in ("admin", "oidc:7"):
        who = User(name, None)
        assert (await refusal(side, who, *create(), grants=[["member", OWN]]))[1] == "ok"
        assert (await refusal(side, who, *create(OTHER), grants=[["member", OWN]]))[0] == 404
        assert (await refusal(side, who, *create(), grants=[]))[0] == 404
        assert (await refusal(side, who, *create(), grants=[["member", OWN]], read_only=True))[1] == "forbidden"
        assert (await refusal(side, who, *create(), grants=[["root", OWN]]))[1] == "invalid_request"


async def test_a_principal_of_an_issuer_has_the_roles_that_projects_give_it(side: WriteSide) -> None:
    who = User("oidc:https://issuer.example#8", None)
    assert (await refusal(side, who, *create()))[0] == 404
    bind = {"project": OWN, "principal": who.principal, "role": "member"}
    await side.ok(OWN, "project", "bind", bind)
    assert (await refusal(side, who, *create()))[1] == "ok"
    await lose(side, OWN, "project", "unbind", {"project": OWN, "principal": who.principal})
    assert (await refusal(side, who, *create()))[0] == 404


async def test_a_service_account_is_a_principal_as_a_user_is(side: WriteSide) -> None:
    name = unique("ci")
    await side.ok("system", "service_account", "create", {"service_account": name, "name": "CI"})
    await side.ok(OWN, "project", "bind", {"project": OWN, "principal": f"service:{name}", "role": "member"})
    who = await issue(side, f"service:{name}")
    assert (await refusal(side, who, *create()))[1] == "ok"
    assert (await refusal(side, User(f"user:{name}", who.token), *create()))[1] == "unauthorized"


# ── tokens that are worthless ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("token", [None, "", "abcdefghij01", "a.b", "x" * 500, "*"])
async def test_a_user_needs_a_token(side: WriteSide, users: dict[Role | None, User], token: str | None) -> None:
    who = User(users[Role.OPERATOR].principal, token)
    assert (await refusal(side, who, *create()))[:2] == (401, "unauthorized")


async def test_the_token_of_another_is_worthless(side: WriteSide, users: dict[Role | None, User]) -> None:
    who = User(users[Role.OPERATOR].principal, users[Role.VIEWER].token)
    assert (await refusal(side, who, *create()))[:2] == (401, "unauthorized")


async def test_an_expired_token_is_worthless(side: WriteSide) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    who = await user(side, unique("brief"), Role.MEMBER, expires_at=soon.isoformat())
    assert (await refusal(side, who, *create()))[1] == "ok"
    await asyncio.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()))
    assert (await refusal(side, who, *create()))[:2] == (401, "unauthorized")


#: How a user with a role loses it, and what it is refused with from then on.
LOSSES: dict[str, tuple[int, Any]] = {
    "revoked": (401, lambda who: ("system", "token", "revoke", {"token": who.token})),
    "disabled": (401, lambda who: ("system", "user", "disable", {"user": who.principal[5:]})),
    "unbound": (404, lambda who: (OWN, "project", "unbind", {"project": OWN, "principal": who.principal})),
    "less": (403, lambda who: (OWN, "project", "bind", {"project": OWN, "principal": who.principal, "role": "viewer"})),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_what_the_log_has_taken_away_counts_in_all_processes(side: WriteSide, loss: str) -> None:
    """Commands before, while and after it is taken away, at two processes: none that is sent FRESH later is accepted.

    Some come meanwhile, so that both processes have asked a moment ago where the log ends.
    """
    status, command = LOSSES[loss]
    for _ in range(6):
        who = await user(side, unique("u"), Role.MEMBER)
        assert (await refusal(side, who, *create()))[1] == "ok"
        racing = [asyncio.create_task(refusal(side, who, *create())) for _ in range(8)]
        await lose(side, *command(who))
        later = await asyncio.gather(*(refusal(side, who, *create()) for _ in range(8)))
        assert {answer[0] for answer in later} == {status}, later
        assert {answer[0] for answer in await asyncio.gather(*racing)} <= {200, status}


@pytest.mark.parametrize("loss", LOSSES)
async def test_who_has_lost_something_gives_nothing_to_others_from_then_on(side: WriteSide, loss: str) -> None:
    """At two processes: what gives access is never judged by what the log had a moment ago."""
    status, command = LOSSES[loss]
    for _ in range(6):
        who = await user(side, unique("u"), Role.ADMIN)
        give = bind(who.principal, "admin")
        assert (await refusal(side, who, *give))[1] == "ok"
        await side.ok(*command(who))
        later = await asyncio.gather(*(refusal(side, who, *give) for _ in range(8)))
        assert {answer[0] for answer in later} == {status}, later


async def test_a_repeat_is_refused_to_a_caller_who_has_lost_the_role(side: WriteSide) -> None:
    """Its reply would show the resource."""
    who = await user(side, unique("u"), Role.MEMBER)
    operation, command = str(uuid.uuid4()), create()
    assert (await refusal(side, who, *command, operation=operation))[1] == "ok"
    again = await ask(side, who, *command, operation=operation)
    assert again["ok"]["replayed"]
    await lose(side, OWN, "project", "unbind", {"project": OWN, "principal": who.principal})
    assert (await refusal(side, who, *command, operation=operation))[0] == 404
    await side.ok(OWN, "project", "bind", {"project": OWN, "principal": who.principal, "role": "member"})
    assert (await ask(side, who, *command, operation=operation))["ok"]["replayed"]


async def test_a_user_that_is_made_again_has_nothing_of_the_earlier_one(side: WriteSide) -> None:
    who = await user(side, unique("u"), Role.MEMBER)
    name = who.principal[5:]
    delete = ("system", "user", "delete", {"user": name})
    bound = (await side.ask(*delete))["problem"]
    assert (bound["code"], OWN in bound["detail"]) == ("user_in_use", True)
    await lose(side, OWN, "project", "unbind", {"project": OWN, "principal": who.principal})
    await side.ok("system", "user", "bind", {"user": name, "role": "operator"})
    await lose(side, *delete)
    assert (await refusal(side, who, *create()))[0] == 401
    await side.ok("system", "user", "create", {"user": name, "name": "another"})
    assert (await refusal(side, who, *create()))[0] == 401, "a token of the earlier one"
    new = await issue(side, who.principal)
    assert (await refusal(side, new, *create()))[0] == 404, "no role of the earlier one"
    bind = {"project": OWN, "principal": who.principal, "role": "member"}
    await side.ok(OWN, "project", "bind", bind)
    assert (await refusal(side, who, *create()))[0] == 401
    assert (await refusal(side, new, *create()))[1] == "ok"


# ── escalation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def bind(principal: str, role: str, project: str = OWN) -> tuple[str, str, str, dict[str, Any]]:
    return project, "project", "bind", {"project": project, "principal": principal, "role": role}


async def test_nobody_gives_more_than_they_have(side: WriteSide, users: dict[Role | None, User]) -> None:
    them = users[None].principal
    admin, member, operator = users[Role.ADMIN], users[Role.MEMBER], users[Role.OPERATOR]
    assert (await refusal(side, member, *bind(member.principal, "admin")))[1] == "forbidden"
    assert (await refusal(side, admin, *bind(admin.principal, "admin", OTHER)))[0] == 404
    for role in ("operator", "auditor", "root", None):
        assert (await refusal(side, admin, *bind(them, str(role))))[0] == 422
    up = {"user": admin.principal[5:], "role": "operator"}
    assert (await refusal(side, admin, "system", "user", "bind", up))[0] == 404, "users are not theirs to see"
    assert (await refusal(side, users[Role.AUDITOR], "system", "user", "bind", up))[1] == "forbidden"
    assert (await refusal(side, admin, *bind(them, "admin")))[1] == "ok"
    assert (await refusal(side, operator, OWN, "project", "unbind", {"project": OWN, "principal": them}))[1] == "ok"
    for bad in ("node:n1", "guest:g", "system:x", "admin", "user:nosuch", "service:nosuch"):
        assert (await refusal(side, operator, *bind(bad, "viewer")))[0] == 422


def token_for(**more: Any) -> tuple[str, str, str, dict[str, Any]]:
    return "system", "token", "issue", {"token": token_id(), "digest": "ab" * 32, "name": "t", **more}


async def test_tokens_are_issued_and_revoked_by_their_owner(side: WriteSide, users: dict[Role | None, User]) -> None:
    viewer, admin, operator = users[Role.VIEWER], users[Role.ADMIN], users[Role.OPERATOR]
    own = await ask(side, viewer, *token_for())
    assert own["ok"]["state"]["principal"] == viewer.principal
    assert own["ok"]["state"]["created_by"] == viewer.principal
    new = User(viewer.principal, own["ok"]["state"]["id"])
    assert (await refusal(side, new, *create()))[1] == "forbidden", "it is a viewer's"
    revoke = ("system", "token", "revoke", {"token": new.token})
    assert (await refusal(side, admin, *revoke))[:2] == (404, "token_not_found")
    assert (await refusal(side, users[Role.AUDITOR], *revoke))[:2] == (403, "forbidden")
    assert (await refusal(side, new, *revoke))[1] == "ok", "a token may end itself"
    assert (await refusal(side, new, *revoke))[0] == 401
    for who in (viewer, admin, users[Role.AUDITOR], users[None]):
        assert (await refusal(side, who, *token_for(principal=operator.principal)))[1] == "forbidden"
    assert (await refusal(side, operator, *token_for(principal=viewer.principal)))[1] == "ok"
    for principal in ("oidc:7", "admin", "system:x", "node:n1", "user:nosuch"):
        assert (await refusal(side, operator, *token_for(principal=principal)))[0] == 422
    for static in ("admin", "local"):
        assert (await refusal(side, User(static, None), *token_for(), grants=[["operator", None]]))[0] == 422
    forged = await refusal(side, viewer, *token_for(incarnation=str(uuid.uuid4()), created_by=operator.principal))
    assert forged[1] == "ok", "what handlers fill in themselves is overwritten"


LIMITED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"role": "viewer"}, {"role": "member"}),
    ({"role": "viewer"}, {"role": "operator"}),
    ({"project": OWN}, {"project": OTHER}),
    ({"project": OWN, "role": "viewer"}, {"project": OWN, "role": "member"}),
    ({"read_only": True}, {}),
    ({"read_only": True}, {"read_only": True}),
]


@pytest.mark.parametrize(("limits", "asked"), LIMITED, ids=str)
async def test_a_limited_token_issues_none_that_exceeds_it(
    side: WriteSide, users: dict[Role | None, User], limits: dict[str, Any], asked: dict[str, Any]
) -> None:
    """Of an operator, too: the limited token is not one that manages tokens."""
    for role in (Role.MEMBER, Role.OPERATOR):
        who = await issue(side, users[role].principal, **limits)
        assert (await refusal(side, who, *token_for(**asked)))[:2] == (403, "forbidden")


async def test_what_a_limited_token_issues_is_limited(side: WriteSide, users: dict[Role | None, User]) -> None:
    member = users[Role.MEMBER]
    weak = await issue(side, member.principal, role="viewer")
    assert (await refusal(side, weak, *create()))[1] == "forbidden"
    child = (await ask(side, weak, *token_for()))["ok"]["state"]
    assert child["role"] == "viewer"
    assert (await refusal(side, User(member.principal, child["id"]), *create()))[1] == "forbidden"
    assert (await refusal(side, weak, "system", "token", "revoke", {"token": child["id"]}))[1] == "ok"


async def test_only_operators_close_parked_messages(side: WriteSide, users: dict[Role | None, User]) -> None:
    """Whatever the sender vouches for, and before anything is looked up."""
    args = {"source": "reports", "key": "4711", "reason": "seen"}
    requests: dict[str, dict[str, Any]] = {"drop": args, "retry": {"source": "reports", "key": "4711"}}
    for verb, given in requests.items():
        for role, who in users.items():
            status, code, _ = await refusal(side, who, "system", "parked", verb, given, grants=[["operator", None]])
            expected = (404, "parked_not_found") if role is Role.OPERATOR else (403, "forbidden")
            assert (status, code) == expected, role
        for actor in ("system:gateway", "node:host-1", "guest:x", "static"):
            assert (await refusal(side, User(actor, None), "system", "parked", verb, given))[0] == 403, actor
        static = User("admin", None)
        assert (await refusal(side, static, "system", "parked", verb, given, grants=[["operator", None]]))[0] == 404
        limited = await refusal(
            side, static, "system", "parked", verb, given, grants=[["operator", None]], read_only=True
        )
        assert limited[0] == 403
        unknown = User("user:nosuch", token_id())
        assert (await refusal(side, unknown, "system", "parked", verb, given))[0] == 401
    for bad in ({"source": "a.b", "key": "x", "reason": "r"}, {"source": "log", "key": "*", "reason": "r"}):
        assert (await refusal(side, users[Role.OPERATOR], "system", "parked", "drop", bad))[:2] == (
            404,
            "parked_not_found",
        )
    for bad in ({"source": "log", "key": "1"}, {"key": "1", "reason": "r"}, args | {"reason": ""}, args | {"x": "1"}):
        assert (await refusal(side, users[Role.OPERATOR], "system", "parked", "drop", bad))[0] == 422
    unknown_verb = await refusal(side, users[Role.OPERATOR], "system", "parked", "purge", args)
    assert unknown_verb[:2] == (404, "unknown_command")
    assert (await refusal(side, users[Role.OPERATOR], OWN, "parked", "drop", args))[:2] == (404, "unknown_command")
