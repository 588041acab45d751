"""The issue of a token: its secret is made here and answered once. Handlers and the log get its digest only."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.token import IssueToken, Token
from gateway.access.pepper import Minted, Pepper
from gateway.commands.accepted import Reply
from gateway.commands.actions import Action
from gateway.commands.requested import Requested

#: For how long a repeat of the call with the same key is answered with the secret again.
SHOWN_FOR = timedelta(minutes=10)
WITHHELD = (
    "the secret is shown for 10 minutes only, in answers to the call that issued the token; "
    "if it is lost, revoke this token and issue another one"
)
NO_STORE = {"Cache-Control": "no-store"}


def issues(action: Action) -> bool:
    """Whether this call issues a token."""
    return action.kind == "token" and action.verb == IssueToken.VERB


def minted(pepper: Pepper, requested: Requested, key: str | None) -> tuple[Requested, Minted]:
    """The command with the id and the digest of a new token, and the token. `key`: the caller's idempotency key."""
    made = pepper.mint(requested.operation, key)
    return replace(requested, resource=made.id, args={**requested.args, "digest": made.digest}), made


def secret_of(made: Minted, reply: Reply) -> dict[str, Any]:
    """The secret in an answer, or why it has none.

    The digest is compared because a repeat may come after the pepper was replaced: then the secret would be wrong.
    """
    stored, operation = reply.state, reply.operation
    accepted_at = operation.record.accepted_at if operation is not None else None
    known = isinstance(stored, Token) and stored.digest == made.digest
    in_time = accepted_at is not None and datetime.now(UTC) - accepted_at < SHOWN_FOR
    if known and (in_time or not reply.replayed):
        return {"secret": made.text, "secret_withheld": None}
    return {"secret": None, "secret_withheld": WITHHELD}
