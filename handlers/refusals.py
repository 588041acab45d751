"""What went wrong with a request, as the problem that its sender gets: one table for all that handlers answer."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from domain.base import Rejected
from eventstore.log.store import Conflict, TooLarge, TooMany, Unavailable
from eventstore.vault.vault import Erased, VaultUnavailable, WrongMasterKey
from runtime.replies import MOST_DETAIL, Refusal

NOT_STORED = Refusal(
    code="log_unavailable", status=503, detail="the log cannot store this now, as when its disk is full; try again"
)
VAULT_CLOSED = Refusal(code="vault_closed", status=503, detail="secrets cannot be sealed: the master key is wrong")
DELETED = Refusal(code="vm_deleted", status=410, detail="this VM was deleted")


def refusal(error: Exception) -> Refusal | None:
    """The problem that an exception is to who asked; None where it is a fault of ours."""
    match error:
        case Rejected():
            return Refusal.model_construct(
                code=error.code, status=error.status, detail=error.detail[:MOST_DETAIL], field=error.field
            )
        case Unavailable() | VaultUnavailable() | Conflict():
            return NOT_STORED
        case WrongMasterKey():
            return VAULT_CLOSED
        case Erased():
            return DELETED
        case _:
            return None


def too_large(args: Mapping[str, Any], error: TooLarge | TooMany) -> Rejected:
    """The refusal of what no single event can hold; it names the argument that takes most of the room."""
    sizes = {name: len(to_json(value)) for name, value in args.items()}
    field = max(sizes, key=lambda name: sizes[name], default=None)
    room = f"{field} takes {sizes[field]} of its bytes" if field else str(error)
    return Rejected("request_too_large", f"this is more than one event can hold: {room}", status=413, field=field)
