"""Tokens: their table and how the API shows them. The digest of a token's secret is in no view."""

from typing_extensions import TypedDict

from domain.access import Role
from domain.token import TOKEN, Token
from projections.aggregates import COMMON, Aggregates
from projections.times import text


class TokenView(TypedDict):
    """A token as the API shows it. `project`, `role` and `read_only` limit it. `created_by` is who issued it.

    `last_used_at` is the minute of its last use; the gateway knows it.
    """

    id: str
    name: str
    principal: str
    expires_at: str
    project: str | None
    role: Role | None
    read_only: bool
    last_used_at: str | None
    created_by: str | None
    created_at: str
    updated_at: str
    version: int
    position: int


def view(state: Token, version: int, position: int) -> TokenView:
    return {
        "id": state.id,
        "name": state.name,
        "principal": state.principal,
        "expires_at": text(state.expires_at),
        "project": state.project,
        "role": state.role,
        "read_only": state.read_only,
        "last_used_at": None,
        "created_by": state.created_by,
        "created_at": text(state.created_at),
        "updated_at": text(state.updated_at),
        "version": version,
        "position": position,
    }


TOKENS = Aggregates[Token, TokenView](
    of=TOKEN,
    revision=3,
    columns={"principal": lambda state: state.principal},
    view=view,
    filters={"principal": "principal = %(principal)s"},
    ended="revoked",
    ddl=f"""
        CREATE TABLE tokens ({COMMON}, principal text NOT NULL);
        CREATE INDEX ON tokens (created) WHERE NOT deleted;
        CREATE INDEX ON tokens (principal, created) WHERE NOT deleted;
    """,
)
