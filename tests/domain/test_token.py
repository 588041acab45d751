"""The life of a token, and what it gives."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from domain.access import ROLES, VM_CREATE, Access, Grant, Limits, Role, narrowed
from domain.account import Account
from domain.base import Category, Rejected, replace
from domain.principals import access_of, forbidden, vouched_access, worthless
from domain.token import (
    LASTS,
    LASTS_AT_MOST,
    TOKEN,
    IssueToken,
    RevokeToken,
    Token,
    TokenIssued,
    TokenRevoked,
    admit,
)
from tests.domain.story import Story, at, refused, uid

ID = "abcdefghij01"
NONE: Story[Token] = Story(TOKEN.decide, TOKEN.evolve, None)


def issue(operation: int = 10, **more: Any) -> IssueToken:
    given = {"token": ID, "digest": "ab" * 32, "name": "laptop", "incarnation": uid(5), "principal": "user:ada"}
    return IssueToken(**{**given, "operation": uid(operation), "fingerprint": "f", "at": at(operation), **more})


def revoke(operation: int = 20) -> RevokeToken:
    return RevokeToken(token=ID, operation=uid(operation), fingerprint="f", at=at(operation))


ISSUED = NONE.when(issue())


def test_from_beginning_to_end() -> None:
    token = ISSUED.then(TokenIssued).after
    assert (token.id, token.principal, token.expires_at) == (ID, "user:ada", at(10) + LASTS)
    revoked = ISSUED.and_when(revoke()).then(TokenRevoked)
    assert revoked.after.revoked
    revoked.and_when(revoke(21)).then_rejected("token_revoked", Category.GONE)
    revoked.and_when(revoke()).then_nothing()
    NONE.when(revoke()).then_rejected("token_not_found", Category.NOT_FOUND)


@pytest.mark.parametrize("story", [ISSUED, ISSUED.and_when(revoke())])
def test_an_id_is_used_once(story: Any) -> None:
    story.and_when(issue(30)).then_rejected("token_exists")
    story.and_when(issue()).then_nothing()


def test_how_long_a_token_lasts() -> None:
    assert NONE.when(issue(expires_at=at(11))).then(TokenIssued).after.expires_at == at(11)
    assert NONE.when(issue(expires_at=at(10) + LASTS_AT_MOST)).then(TokenIssued)
    for when in (at(10), at(0), at(10) + LASTS_AT_MOST + timedelta(seconds=1)):
        NONE.when(issue(expires_at=when)).then_rejected("invalid_request", Category.INVALID)


def test_whose_token_it_is() -> None:
    own = NONE.when(issue(principal=None, created_by="service:ci")).then(TokenIssued).after
    assert own.principal == "service:ci"
    for missing in ("principal", "incarnation"):
        NONE.when(issue(10, **{missing: None})).then_rejected("invalid_request", Category.INVALID)


@pytest.mark.parametrize(
    "bad",
    [
        *({"principal": name} for name in ("oidc:x", "admin", "node:n1", "system:x", "guest:g", "user:", "user:A")),
        *({"token": id_} for id_ in ("ABCDEFGHIJ01", "short", "abcdefghij012", "abcdefghij0-", "abcdefghij0\n")),
        *({"digest": digest} for digest in ("", "AB" * 32, "ab" * 31, "ab" * 33)),
        {"role": "root"},
    ],
)
def test_what_is_no_token(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        issue(**bad)


# ── what a token gives ──────────────────────────────────────────────────────────────────────────────────────────────

ADA = Account(id="ada", name="Ada", incarnation=uid(5), created_at=at(0), updated_at=at(0))
TOKEN_OF_ADA = ISSUED.after
MEMBERS = {"shop": Role.ADMIN, "lab": Role.VIEWER}


def test_a_token_gives_what_its_principal_has() -> None:
    access = access_of("user:ada", replace(ADA, roles=(Role.AUDITOR,)), MEMBERS, TOKEN_OF_ADA, at(50))
    assert access is not None
    assert access.grants == {Grant(Role.AUDITOR), Grant(Role.ADMIN, "shop"), Grant(Role.VIEWER, "lab")}
    assert access.limits == Limits(None, None, TOKEN_OF_ADA.expires_at)


WORTHLESS: dict[str, dict[str, Any]] = {
    "no account": {"account": None},
    "a deleted account": {"account": replace(ADA, deleted=True)},
    "a disabled account": {"account": replace(ADA, disabled=True)},
    "a later account of the same id": {"account": replace(ADA, incarnation=uid(6))},
    "no token": {"token": None},
    "a revoked token": {"token": replace(TOKEN_OF_ADA, revoked=True)},
    "the token of another": {"token": replace(TOKEN_OF_ADA, principal="user:bob")},
    "the token of a service account of the same id": {"token": replace(TOKEN_OF_ADA, principal="service:ada")},
    "an expired token": {"now": TOKEN_OF_ADA.expires_at},
}


@pytest.mark.parametrize("why", WORTHLESS)
def test_a_worthless_token(why: str) -> None:
    given = {"account": ADA, "members": MEMBERS, "token": TOKEN_OF_ADA, "now": at(50)}
    assert access_of("user:ada", **given) is not None  # type: ignore[arg-type]
    assert access_of("user:ada", **{**given, **WORTHLESS[why]}) is None
    assert worthless().category is Category.UNAUTHORIZED


def test_a_limited_token_gives_less() -> None:
    def gives(account: Account = ADA, **limits: Any) -> Access:
        access = access_of("user:ada", account, MEMBERS, replace(TOKEN_OF_ADA, **limits), at(50))
        assert access is not None
        return access

    assert gives(project="shop").grants == {Grant(Role.ADMIN, "shop")}
    assert gives(project="none").grants == frozenset()
    assert gives(role=Role.MEMBER).grants == {Grant(Role.MEMBER, "shop"), Grant(Role.VIEWER, "lab")}
    assert gives(project="shop", role=Role.VIEWER).grants == {Grant(Role.VIEWER, "shop")}
    assert gives(read_only=True).read_only
    operator = replace(ADA, roles=(Role.OPERATOR,))
    assert gives(operator, project="shop").grants == {Grant(Role.ADMIN, "shop")}
    assert gives(operator, role=Role.OPERATOR).grants >= {Grant(Role.OPERATOR)}


def test_principals_that_are_no_resources() -> None:
    access = vouched_access("oidc:7", [Grant(Role.AUDITOR)], {"lab": Role.MEMBER}, read_only=True)
    assert access == Access("oidc:7", frozenset([Grant(Role.AUDITOR), Grant(Role.MEMBER, "lab")]), read_only=True)


# ── who may issue and revoke which ──────────────────────────────────────────────────────────────────────────────────


def caller(*grants: Grant, principal: str = "user:ada", **more: Any) -> Access:
    return Access(principal, frozenset(grants), **more)


MEMBER, OPERATOR = Grant(Role.MEMBER, "shop"), Grant(Role.OPERATOR)


def test_callers_issue_tokens_for_themselves_only() -> None:
    for own in (issue(), issue(principal=None)):
        assert admit(caller(MEMBER), own, None) == own
    for grants in ([MEMBER], [Grant(Role.ADMIN, "shop")], [Grant(Role.AUDITOR)]):
        error = refused(lambda grants=grants: admit(caller(*grants), issue(principal="user:bob"), None))  # type: ignore[misc]
        assert (error.code, error.category, error.field) == ("forbidden", Category.FORBIDDEN, "principal")
        assert "operator" in error.detail
    assert admit(caller(OPERATOR), issue(principal="user:bob"), None)


ESCALATIONS = [
    (Limits(project="shop"), {"project": "lab"}, "project"),
    (Limits(role=Role.VIEWER), {"role": Role.MEMBER}, "role"),
    (Limits(role=Role.MEMBER), {"role": Role.AUDITOR}, "role"),
    (Limits(role=Role.ADMIN), {"role": Role.OPERATOR}, "role"),
    (Limits(expires_at=at(100)), {"expires_at": at(101)}, "expires_at"),
    (Limits(project="shop", role=Role.VIEWER), {"project": "shop", "role": Role.ADMIN}, "role"),
]


@pytest.mark.parametrize(("limits", "asked", "field"), ESCALATIONS)
def test_a_limited_token_issues_none_that_exceeds_it(limits: Limits, asked: dict[str, Any], field: str) -> None:
    access = caller(MEMBER, Grant(Role.VIEWER, "lab"), limits=limits)
    error = refused(lambda: admit(access, issue(**asked), None))
    assert (error.code, error.field) == ("forbidden", field)


@pytest.mark.parametrize("asked", [{}, {"role": Role.VIEWER}, {"expires_at": at(50)}, {"read_only": True}])
def test_the_limits_of_a_token_hold_for_those_it_issues(asked: dict[str, Any]) -> None:
    access = caller(MEMBER, limits=Limits("shop", Role.MEMBER, at(100)))
    command = admit(access, issue(**asked), None)
    assert isinstance(command, IssueToken)
    assert command.project == "shop"
    assert command.role is asked.get("role", Role.MEMBER)
    assert command.expires_at == asked.get("expires_at", at(100))


def test_a_long_token_does_not_make_long_ones_by_default() -> None:
    command = admit(caller(MEMBER, limits=Limits(expires_at=at(10) + 2 * LASTS)), issue(), None)
    assert isinstance(command, IssueToken)
    assert command.expires_at == at(10) + LASTS


def test_a_token_for_a_project_without_a_role_in_it_is_refused() -> None:
    assert refused(lambda: admit(caller(MEMBER), issue(project="lab"), None)).field == "project"
    assert admit(caller(MEMBER), issue(project="shop"), None)
    assert admit(caller(OPERATOR), issue(project="lab"), None)


def test_no_chain_of_issued_tokens_gives_more_than_the_first() -> None:
    """Every limit that a token can be issued with: what it gives then, and later when its principal gets more roles."""
    rich = replace(ADA, roles=(Role.OPERATOR,))
    choices: list[dict[str, Any]] = [
        {"project": project, "role": role} for project in (None, "shop", "lab") for role in (None, *Role)
    ]
    for first in choices:
        token = replace(TOKEN_OF_ADA, **first)
        mine = access_of("user:ada", ADA, MEMBERS, token, at(11))
        richest = access_of("user:ada", rich, MEMBERS, token, at(11))
        assert mine is not None
        assert richest is not None
        for asked in choices:
            try:
                command = admit(mine, issue(**asked), None)
            except Rejected:
                continue
            assert isinstance(command, IssueToken)
            child = NONE.when(command).after
            for account, most in ((ADA, mine), (rich, richest)):
                got = access_of("user:ada", account, MEMBERS, child, at(11))
                assert got is not None
                assert all(most.has(grant) for grant in got.grants), (first, asked, got.grants)


def test_whose_tokens_are_revoked() -> None:
    token, bob = TOKEN_OF_ADA, "user:bob"
    assert admit(caller(MEMBER), revoke(), token)
    assert admit(caller(OPERATOR, principal=bob), revoke(), token)
    hidden = refused(lambda: admit(caller(MEMBER, principal=bob), revoke(), token))
    assert (hidden.code, hidden.detail) == ("token_not_found", NONE.when(revoke()).then_rejected(*GONE).detail)
    seen = refused(lambda: admit(caller(Grant(Role.AUDITOR), principal=bob), revoke(), token))
    assert (seen.code, "operator" in seen.detail) == ("forbidden", True)


GONE = ("token_not_found", Category.NOT_FOUND)


def test_the_refusal_of_what_one_may_see() -> None:
    error = forbidden(caller(), VM_CREATE, "shop")
    assert (error.code, error.category) == ("forbidden", Category.FORBIDDEN)
    assert "member in project shop" in error.detail


def test_narrowed_never_gives_more() -> None:
    for grant in (Grant(role, project) for role in Role for project in (None, "shop")):
        for limit in (None, *Role):
            for project in (None, "shop"):
                for one in narrowed([grant], project=project, role=limit):
                    assert caller(grant).has(one)
                    assert limit is None or ROLES[one.role] <= ROLES[limit]
