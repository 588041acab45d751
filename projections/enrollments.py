"""Enrollments of nodes: their table and how the API shows them."""

from typing_extensions import TypedDict

from domain.enrollment import ENROLLMENT, Enrollment
from projections.aggregates import COMMON, Aggregates
from projections.times import maybe, text


class EnrollmentView(TypedDict):
    """The enrollment of a node as the API shows it; its id is the node's name.

    `status` is invited (a join token was issued, and no host has joined), joined or revoked. `token_expires_at`: until
    when the join token may be used; null if there is none that waits for its use. `public_key`, `fingerprint`: the
    node's key; the last one if it is revoked.
    """

    id: str
    status: str
    public_key: str | None
    fingerprint: str | None
    joined_at: str | None
    revoked_at: str | None
    token_expires_at: str | None
    created_at: str
    updated_at: str
    version: int
    position: int


def status(state: Enrollment) -> str:
    if state.valid_key is not None:
        return "joined"
    return "invited" if state.token is not None else "revoked"


def view(state: Enrollment, version: int, position: int) -> EnrollmentView:
    key = state.key
    return {
        "id": state.id,
        "status": status(state),
        "public_key": key.public_key if key is not None else None,
        "fingerprint": key.fingerprint if key is not None else None,
        "joined_at": maybe(key.joined_at if key is not None else None),
        "revoked_at": maybe(key.revoked_at if key is not None else None),
        "token_expires_at": maybe(state.token.expires_at if state.token is not None else None),
        "created_at": text(state.created_at),
        "updated_at": text(state.updated_at),
        "version": version,
        "position": position,
    }


ENROLLMENTS = Aggregates[Enrollment, EnrollmentView](
    of=ENROLLMENT,
    revision=4,
    columns={},
    view=view,
    ddl=f"""
        CREATE TABLE enrollments ({COMMON});
        CREATE INDEX ON enrollments (created);
    """,
)
