"""Tokens: credentials of users and service accounts. The log has an HMAC of a token's secret, never the secret.

    IssueToken ─► valid ──RevokeToken──► revoked
                    └──expires_at──► expired

A token gives what its principal may do, and less if it is limited to a project, a role, or to reads. It gives nothing
while its principal is disabled, and nothing any more once its principal is deleted.
"""

from datetime import datetime, timedelta
from typing import Annotated, assert_never

from pydantic import AwareDatetime, Field, StringConstraints
from pydantic.dataclasses import dataclass
from pydantic.json_schema import SkipJsonSchema

from domain.accepted_requests import NONE as NO_OPERATIONS, AcceptedRequest, Operations, same_request
from domain.access import ROLES, SELF_EDIT, TOKEN_MANAGE, TOKEN_READ, Access, Limits, Role, narrowed
from domain.base import LENIENT, Category, Event, Rejected, Slug, Title, Uuid, replace
from domain.kind import Id, Kind, Scope
from domain.named import OperationCommand, OperationDone, operation_fields, operations_after
from domain.patterns import SHA256
from domain.principal import AccountPrincipal
from domain.references import LOOKED_UP
from domain.verb import ON_ACCEPTANCE, Effect, Verb

LASTS = timedelta(days=90)
LASTS_AT_MOST = timedelta(days=366)

TokenId = Annotated[str, StringConstraints(pattern="^[a-z0-9]{12}$")]
Digest = Annotated[str, StringConstraints(pattern=f"^{SHA256}$")]
"""The HMAC-SHA256 of a token's secret, in hexadecimal digits."""


class TokenCommand(OperationCommand):
    token: TokenId


class IssueToken(TokenCommand):
    """`principal`: whose token it is; by default the caller's. `incarnation`: that of the principal's account."""

    VERB = "issue"
    digest: Digest
    name: Title
    principal: AccountPrincipal | None = None
    expires_at: AwareDatetime | None = None
    project: Slug | None = None
    role: Role | None = None
    read_only: bool = False
    created_by: str | None = None
    incarnation: Annotated[Uuid | None, LOOKED_UP] = None


class RevokeToken(TokenCommand):
    VERB = "revoke"


TokenCommands = IssueToken | RevokeToken


class TokenIssued(OperationDone):
    TOPIC = "nebula.token.TokenIssued"
    VERB = IssueToken.VERB
    SIGNED = True
    token: str
    principal: str
    incarnation: str
    digest: str
    name: str
    expires_at: AwareDatetime
    project: str | None = None
    role: Role | None = None
    read_only: bool = False
    created_by: SkipJsonSchema[str | None] = Field(default=None, exclude=True)


class TokenRevoked(OperationDone):
    """It is worthless for ever."""

    TOPIC = "nebula.token.TokenRevoked"
    VERB = RevokeToken.VERB


TokenEvents = TokenIssued | TokenRevoked


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Token:
    """The state of a token."""

    id: str
    principal: str
    incarnation: str
    digest: str
    name: str
    expires_at: AwareDatetime
    project: str | None = None
    role: Role | None = None
    read_only: bool = False
    created_by: str | None = None
    revoked: bool = False
    created_at: AwareDatetime
    updated_at: AwareDatetime
    operations: Operations = NO_OPERATIONS

    @property
    def limits(self) -> Limits:
        return Limits(self.project, self.role, self.expires_at)


# ── decide ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def not_found(id_: str) -> Rejected:
    return Rejected("token_not_found", f"there is no token {id_}", Category.NOT_FOUND, field="token")


def decide(token: Token | None, command: TokenCommands) -> list[TokenEvents]:
    """The events that follow from a command on a token. Raises Rejected."""
    known = token.operations.get(command.operation) if token is not None else None
    if same_request(known, command.VERB, command.fingerprint):
        return []
    match command:
        case IssueToken():
            if token is not None:
                raise Rejected("token_exists", f"there is, or was, a token {token.id}; choose another id", field="id")
            return [issue(command)]
        case RevokeToken():
            if token is None:
                raise not_found(command.token)
            if token.revoked:
                raise Rejected("token_revoked", f"token {token.id} was revoked", Category.GONE)
            return [TokenRevoked(**operation_fields(command))]
        case _:
            assert_never(command)


def issue(command: IssueToken) -> TokenIssued:
    expires_at = command.expires_at or command.at + LASTS
    if expires_at <= command.at:
        raise Rejected("invalid_request", "expires_at has to be in the future", Category.INVALID, field="expires_at")
    if expires_at > command.at + LASTS_AT_MOST:
        detail = f"a token lasts at most {LASTS_AT_MOST.days} days"
        raise Rejected("invalid_request", detail, Category.INVALID, field="expires_at")
    principal = command.principal or command.created_by
    if principal is None or command.incarnation is None:
        raise Rejected("invalid_request", "name the principal of the token", Category.INVALID, field="principal")
    return TokenIssued(
        **operation_fields(command),
        token=command.token,
        principal=principal,
        incarnation=command.incarnation,
        digest=command.digest,
        name=command.name,
        expires_at=expires_at,
        project=command.project,
        role=command.role,
        read_only=command.read_only,
        created_by=command.created_by,
    )


def admit(access: Access, command: TokenCommands, token: Token | None) -> TokenCommands:
    """Callers manage their own tokens; those of others need `token.manage`.

    A token that is issued with a limited one has the same limits, or tighter ones. Raises Rejected.
    """
    manages = access.may(TOKEN_MANAGE)
    if isinstance(command, IssueToken):
        if command.principal not in (None, access.principal) and not manages:
            raise forbidden("tokens of other principals need the role operator", "principal")
        return command if manages else within(access, command)
    if token is not None and token.principal != access.principal and not manages:
        if not access.may(TOKEN_READ):
            raise not_found(command.token)
        raise forbidden("to revoke tokens of other principals, you need the role operator")
    return command


def within(access: Access, command: IssueToken) -> IssueToken:
    """The command with the limits of the caller's own token, where it sets none. Raises Rejected if it exceeds them."""
    limits = access.limits
    project, role, last = command.project or limits.project, command.role or limits.role, limits.expires_at
    if limits.project is not None and project != limits.project:
        raise forbidden(f"your own token is limited to project {limits.project}", "project")
    if limits.role is not None and role is not None and not ROLES[role] <= ROLES[limits.role]:
        raise forbidden(f"your own token is limited to the role {limits.role}", "role")
    if project is not None and not narrowed(access.grants, project=project):
        raise forbidden(f"you have no role in project {project}", "project")
    expires_at: datetime | None = command.expires_at
    if last is not None:
        if expires_at is not None and expires_at > last:
            detail = f"it cannot last longer than your own token, which expires at {last:%Y-%m-%dT%H:%M:%SZ}"
            raise forbidden(f"{detail}; ask an operator", "expires_at")
        expires_at = expires_at or min(last, command.at + LASTS)
    return command.model_copy(update={"project": project, "role": role, "expires_at": expires_at})


def forbidden(detail: str, field: str | None = None) -> Rejected:
    return Rejected("forbidden", detail, Category.FORBIDDEN, field=field)


# ── evolve ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def evolve(token: Token | None, event: Event) -> Token | None:
    """The state after an event."""
    if isinstance(event, TokenIssued):
        return Token(
            id=event.token,
            principal=event.principal,
            incarnation=event.incarnation,
            digest=event.digest,
            name=event.name,
            expires_at=event.expires_at,
            project=event.project,
            role=event.role,
            read_only=event.read_only,
            created_by=event.created_by,
            created_at=event.at,
            updated_at=event.at,
            operations=operations_after(None, event),
        )
    if token is None or not isinstance(event, TokenRevoked):
        return token
    known = token.operations.insert(event.operation, AcceptedRequest(event.VERB, event.fingerprint))
    return replace(token, revoked=True, updated_at=event.at, operations=known)


TOKEN = Kind[Token, TokenCommands](
    name="token",
    plural="tokens",
    title="token",
    scope=Scope.CLOUD,
    id=Id.SLUG,
    state=Token,
    readable_by=TOKEN_READ,
    verbs=(
        Verb[TokenCommands](
            name=IssueToken.VERB,
            command=IssueToken,
            summary="Issue a token for yourself or, as an operator, for another principal",
            effect=Effect.CREATES,
            permission=SELF_EDIT,
            accepted_by=(TokenIssued,),
            fulfilled_by=ON_ACCEPTANCE,
            admit=admit,
        ),
        Verb[TokenCommands](
            name=RevokeToken.VERB,
            command=RevokeToken,
            summary="Revoke a token: it is worthless for ever",
            effect=Effect.DELETES,
            permission=SELF_EDIT,
            accepted_by=(TokenRevoked,),
            fulfilled_by=ON_ACCEPTANCE,
            admit=admit,
        ),
    ),
    events=(),
    decide=decide,
    evolve=evolve,
    deleted=lambda token: token.revoked,
)
