"""The enrollment of a node: which host may speak for the node of this name. Its id is the node's name.

    IssueJoinToken ─► invited ──JoinNode──► joined ──RevokeEnrollment, or the node retires──► revoked
                         ▲                     │                                                │
                         └───────────────── IssueJoinToken ─────────────────────────────────────┘

A join token is valid for one hour, for one node and for one use. The log has only its SHA-256: the token has 256 random
bits, so nobody can find it by trying. A node that joins again gets a new key, and the old one is revoked with it. While
a token waits for its use, the key that the node has stays valid.
"""

import hashlib
from datetime import timedelta
from typing import Annotated, ClassVar, assert_never

from pydantic import AwareDatetime, BeforeValidator, Field, StringConstraints
from pydantic.dataclasses import dataclass

from domain.accepted_requests import NONE, AcceptedRequest, Operations, same_request
from domain.access import NODE_MANAGE, NODE_READ
from domain.base import LENIENT, Category, Command, Event, Message, Rejected, Slug, Uuid, as_integer, replace
from domain.kind import Id, Kind, Scope
from domain.patterns import SHA256
from domain.verb import ON_ACCEPTANCE, Effect, Verb

Digest = Annotated[str, StringConstraints(pattern=f"^{SHA256}$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^U[A-Z2-7]{55}$")]
"""An ed25519 public key in the format of NATS (nkey): the key of a node."""

#: Minutes for which a join token is valid, at most and by default.
MOST_MINUTES = 60


class EnrollmentCommand(Command):
    enrollment: Slug


class IssueJoinToken(EnrollmentCommand):
    """Allow one host to join under this name. `digest`: the SHA-256 of the token, which the caller has made.

    An earlier token that was not used becomes invalid.
    """

    VERB: ClassVar[str] = "issue"
    operation: Uuid
    fingerprint: str
    digest: Digest
    minutes: Annotated[int, Field(ge=1, le=MOST_MINUTES), BeforeValidator(as_integer)] = MOST_MINUTES


class RevokeEnrollment(EnrollmentCommand):
    """End the credential of the node, and its join token."""

    VERB: ClassVar[str] = "revoke"
    operation: Uuid
    fingerprint: str


class JoinNode(EnrollmentCommand):
    """A host presents a token, of which `digest` is the SHA-256, its own public key, and that of its guest-data."""

    digest: Digest
    public_key: PublicKey
    guest_key: PublicKey | None = None


class WithdrawEnrollment(EnrollmentCommand):
    """The node was retired at `retired_at`: end the key and the token that it had then."""

    retired_at: AwareDatetime


EnrollmentCommands = IssueJoinToken | RevokeEnrollment | JoinNode | WithdrawEnrollment


class EnrollmentEvent(Event):
    at: AwareDatetime
    operation: str | None = None


class JoinTokenIssued(EnrollmentEvent):
    TOPIC = "nebula.enrollment.JoinTokenIssued"
    enrollment: str
    digest: str
    expires_at: AwareDatetime
    fingerprint: str


class NodeJoined(EnrollmentEvent):
    """A host used the token. `replaced`: the fingerprint of the node's earlier key, which this event revokes, and with
    it that of its guest-data. `guest_key`: the public key of guest-data.
    """

    TOPIC = "nebula.enrollment.NodeJoined"
    public_key: str
    key_fingerprint: str
    replaced: str | None = None
    guest_key: str | None = None


class JoinTokenReused(EnrollmentEvent):
    """A token that was used already was presented with another key: somebody else may know it. Noted once per token."""

    TOPIC = "nebula.enrollment.JoinTokenReused"
    public_key: str


class EnrollmentRevoked(EnrollmentEvent):
    """An operator ended the key and the token of the node."""

    TOPIC = "nebula.enrollment.EnrollmentRevoked"
    fingerprint: str


class EnrollmentWithdrawn(EnrollmentEvent):
    """The node was retired at `retired_at`, which ended the token that it had then, and the key of that token."""

    TOPIC = "nebula.enrollment.EnrollmentWithdrawn"
    retired_at: AwareDatetime


EnrollmentEvents = JoinTokenIssued | NodeJoined | JoinTokenReused | EnrollmentRevoked | EnrollmentWithdrawn


class JoinToken(Message):
    """A token that was not used yet."""

    digest: str
    issued_at: AwareDatetime
    expires_at: AwareDatetime


class NodeKey(Message):
    """The key of a node, and the one of its guest-data. They are revoked together.

    `digest`, `issued_at`, `expires_at`: of the token with which it joined.
    """

    public_key: str
    guest_key: str | None = None
    fingerprint: str
    joined_at: AwareDatetime
    digest: str
    issued_at: AwareDatetime
    expires_at: AwareDatetime
    revoked_at: AwareDatetime | None = None
    reused: bool = False

    @property
    def all(self) -> tuple[str, ...]:
        """The public keys."""
        return (self.public_key,) if self.guest_key is None else (self.public_key, self.guest_key)


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Enrollment:
    """`key`: the last key of the node, also after it was revoked. `revoked`: all earlier keys that were replaced, with
    those of guest-data.
    """

    id: str
    token: JoinToken | None = None
    key: NodeKey | None = None
    revoked: tuple[str, ...] = ()
    created_at: AwareDatetime
    updated_at: AwareDatetime
    operations: Operations = NONE

    @property
    def valid_key(self) -> NodeKey | None:
        """The key with which the node may act now."""
        return self.key if self.key is not None and self.key.revoked_at is None else None


def fingerprint_of(public_key: str) -> str:
    """The fingerprint of a node's key, for people: `sha256:` and the SHA-256 of its text in hex."""
    return "sha256:" + hashlib.sha256(public_key.encode()).hexdigest()


def decide(enrollment: Enrollment | None, command: EnrollmentCommands) -> list[EnrollmentEvents]:
    """The events that follow from a command. Raises Rejected."""
    match command:
        case IssueJoinToken():
            return issue(enrollment, command)
        case RevokeEnrollment():
            return revoke(enrollment, command)
        case JoinNode():
            return join(enrollment, command)
        case WithdrawEnrollment():
            return withdraw(enrollment, command)
        case _:
            assert_never(command)


def issue(enrollment: Enrollment | None, command: IssueJoinToken) -> list[EnrollmentEvents]:
    known = enrollment.operations.get(command.operation) if enrollment is not None else None
    if same_request(known, command.VERB, command.fingerprint):
        return []
    key = enrollment.key if enrollment is not None else None
    if key is not None and key.digest == command.digest:
        raise Rejected("join_token_used", "this token was used already; make a new one", field="digest")
    return [
        JoinTokenIssued(
            at=command.at,
            operation=command.operation,
            enrollment=command.enrollment,
            digest=command.digest,
            expires_at=command.at + timedelta(minutes=command.minutes),
            fingerprint=command.fingerprint,
        )
    ]


def revoke(enrollment: Enrollment | None, command: RevokeEnrollment) -> list[EnrollmentEvents]:
    if enrollment is None:
        detail = f"there is no enrollment {command.enrollment}"
        raise Rejected("enrollment_not_found", detail, Category.NOT_FOUND, field="enrollment")
    if same_request(enrollment.operations.get(command.operation), command.VERB, command.fingerprint):
        return []
    if enrollment.valid_key is None and enrollment.token is None:
        raise Rejected("nothing_to_revoke", f"node {enrollment.id} has no valid key and no join token")
    return [EnrollmentRevoked(at=command.at, operation=command.operation, fingerprint=command.fingerprint)]


def join(enrollment: Enrollment | None, command: JoinNode) -> list[EnrollmentEvents]:
    """Let the host join. A repeat by the same key with the same token, within the token's hour, is no second use."""
    token, key = (enrollment.token, enrollment.key) if enrollment is not None else (None, None)
    if key is not None and key.digest == command.digest:
        same = (key.public_key, key.guest_key) == (command.public_key, command.guest_key)
        if same and key.revoked_at is None and command.at < key.expires_at:
            return []
        if key.public_key == command.public_key or key.reused:
            raise token_used(command.enrollment)
        return [JoinTokenReused(at=command.at, public_key=command.public_key)]
    if token is None or token.digest != command.digest:
        raise token_invalid(command.enrollment)
    if command.at >= token.expires_at:
        detail = f"the join token of node {command.enrollment} expired at {token.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        raise Rejected("join_token_expired", f"{detail}; an operator has to make a new one (nebula node token)")
    replaced = enrollment.valid_key if enrollment is not None else None
    earlier = (*enrollment.revoked, *(key.all if key is not None else ())) if enrollment is not None else ()
    if command.public_key in earlier:
        raise Rejected("node_key_used", "this key was the node's before; make a new key", field="public_key")
    if command.guest_key in (*earlier, command.public_key):
        raise Rejected("node_key_used", "guest-data needs a new key of its own", field="guest_key")
    return [
        NodeJoined(
            at=command.at,
            public_key=command.public_key,
            key_fingerprint=fingerprint_of(command.public_key),
            replaced=replaced.fingerprint if replaced is not None else None,
            guest_key=command.guest_key,
        )
    ]


def withdraw(enrollment: Enrollment | None, command: WithdrawEnrollment) -> list[EnrollmentEvents]:
    if enrollment is None:
        return []
    held = (enrollment.valid_key, enrollment.token)
    if not any(one is not None and one.issued_at <= command.retired_at for one in held):
        return []
    return [EnrollmentWithdrawn(at=command.at, retired_at=command.retired_at)]


def token_used(node: str) -> Rejected:
    return Rejected("join_token_used", f"the join token of node {node} was used already; each is valid for one use")


def token_invalid(node: str) -> Rejected:
    detail = f"this join token is not valid for node {node}: it was not issued for it, was replaced, or was revoked"
    return Rejected("join_token_invalid", detail)


def evolve(enrollment: Enrollment | None, event: Event) -> Enrollment | None:
    """The state after an event."""
    if isinstance(event, JoinTokenIssued):
        before = enrollment or Enrollment(id=event.enrollment, created_at=event.at, updated_at=event.at)
        token = JoinToken(digest=event.digest, issued_at=event.at, expires_at=event.expires_at)
        operations = accepted(before, event, IssueJoinToken.VERB)
        return replace(before, token=token, updated_at=event.at, operations=operations)
    if enrollment is None or not isinstance(event, EnrollmentEvents):
        return enrollment
    return replace(changed(enrollment, event), updated_at=event.at)


def changed(enrollment: Enrollment, event: EnrollmentEvents) -> Enrollment:
    key = enrollment.key
    match event:
        case NodeJoined():
            token = enrollment.token
            joined = NodeKey(
                public_key=event.public_key,
                guest_key=event.guest_key,
                fingerprint=event.key_fingerprint,
                joined_at=event.at,
                digest=token.digest if token is not None else "",
                issued_at=token.issued_at if token is not None else event.at,
                expires_at=token.expires_at if token is not None else event.at,
            )
            revoked = enrollment.revoked if key is None else (*enrollment.revoked, *key.all)
            return replace(enrollment, token=None, key=joined, revoked=revoked)
        case JoinTokenReused():
            return replace(enrollment, key=key.model_copy(update={"reused": True}) if key is not None else None)
        case EnrollmentRevoked():
            operations = accepted(enrollment, event, RevokeEnrollment.VERB)
            return replace(enrollment, token=None, key=ended(key, event), operations=operations)
        case EnrollmentWithdrawn():
            token = enrollment.token
            kept = token if token is not None and token.issued_at > event.retired_at else None
            old = key is not None and key.issued_at <= event.retired_at
            return replace(enrollment, token=kept, key=ended(key, event) if old else key)
        case JoinTokenIssued():
            return enrollment
        case _:
            assert_never(event)


def ended(key: NodeKey | None, event: EnrollmentEvent) -> NodeKey | None:
    """The key, revoked by this event if it was not before."""
    if key is None or key.revoked_at is not None:
        return key
    return key.model_copy(update={"revoked_at": event.at})


def accepted(enrollment: Enrollment, event: JoinTokenIssued | EnrollmentRevoked, verb: str) -> Operations:
    return enrollment.operations.insert(event.operation or "", AcceptedRequest(verb, event.fingerprint))


ENROLLMENT = Kind[Enrollment, EnrollmentCommands](
    name="enrollment",
    plural="enrollments",
    title="enrollment",
    scope=Scope.CLOUD,
    id=Id.SLUG,
    readable_by=NODE_READ,
    state=Enrollment,
    verbs=(
        Verb(
            name=IssueJoinToken.VERB,
            command=IssueJoinToken,
            summary="Issue a join token for a node",
            effect=Effect.ACTS,
            permission=NODE_MANAGE,
            accepted_by=(JoinTokenIssued,),
            fulfilled_by=ON_ACCEPTANCE,
        ),
        Verb(
            name=RevokeEnrollment.VERB,
            command=RevokeEnrollment,
            summary="Revoke the credential of a node",
            effect=Effect.ACTS,
            permission=NODE_MANAGE,
            accepted_by=(EnrollmentRevoked,),
            fulfilled_by=ON_ACCEPTANCE,
        ),
    ),
    events=(NodeJoined, JoinTokenReused, EnrollmentWithdrawn),
    decide=decide,
    evolve=evolve,
    deleted=lambda _: False,
)
