"""What went wrong with a request, as the problem that its sender gets: one table for all that handlers answer.

The rules know no HTTP: what a refusal says of it to people who use the API is added here.
"""

from collections.abc import Mapping

from pydantic_core import to_json

from domain.base import Category, Rejected
from domain.known import KeyReused
from eventstore.log.store import Conflict, TooLarge, TooMany, Unavailable
from eventstore.vault.vault import Erased, VaultUnavailable, WrongMasterKey
from runtime.bus.replies import MOST_DETAIL, Refusal

#: Where a person's key comes from.
KEY = "Idempotency-Key"
NOT_STORED = Refusal(
    code="log_unavailable", status=503, detail="the log cannot store this now, as when its disk is full; try again"
)
VAULT_CLOSED = Refusal(code="vault_closed", status=503, detail="secrets cannot be sealed: the master key is wrong")
DELETED = Refusal(code="vm_deleted", status=410, detail="this VM was deleted")


def refusal(error: Exception) -> Refusal | None:
    """The problem that an exception is to who asked; None where it is a fault of ours."""
    match error:
        case KeyReused():
            detail = f"this {KEY} was used before, {error.used_for}; use a new key"
            return _refused(error, detail, KEY)
        case Rejected(code="vm_deleted"):
            return _refused(error, f"{error.detail}; read its past with ?at=", error.field)
        case Rejected():
            return _refused(error, error.detail, error.field)
        case Unavailable() | VaultUnavailable() | Conflict():
            return NOT_STORED
        case WrongMasterKey():
            return VAULT_CLOSED
        case Erased():
            return DELETED
        case _:
            return None


def _refused(error: Rejected, detail: str, field: str | None) -> Refusal:
    return Refusal.model_construct(
        code=error.code, status=status(error.category), detail=detail[:MOST_DETAIL], field=field
    )


def status(category: Category) -> int:
    """The number of a refusal in the command protocol: the HTTP status that the API answers with."""
    match category:
        case Category.CONFLICT:
            return 409
        case Category.INVALID:
            return 422
        case Category.NOT_FOUND:
            return 404
        case Category.GONE:
            return 410
        case Category.TOO_LARGE:
            return 413
        case Category.UNAVAILABLE:
            return 503


def too_large(args: Mapping[str, object], error: TooLarge | TooMany) -> Rejected:
    """The refusal of what no single event can hold; it names the argument that takes most of the room."""
    sizes = {name: len(to_json(value)) for name, value in args.items()}
    field = max(sizes, key=lambda name: sizes[name], default=None)
    room = f"{field} takes {sizes[field]} of its bytes" if field else str(error)
    return Rejected(
        "request_too_large", f"this is more than one event can hold: {room}", Category.TOO_LARGE, field=field
    )
