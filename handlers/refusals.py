"""The problem that the sender of a failed request gets: one table for all requests that handlers answer.

`domain/` knows no HTTP. The words about HTTP in a refusal are added here.
"""

from collections.abc import Mapping

from pydantic_core import to_json

from domain.accepted_requests import KeyReused
from domain.base import Category, Rejected
from eventstore.log.store import Conflict, TooLarge, TooMany, Unavailable
from eventstore.vault.vault import Erased, VaultUnavailable, WrongMasterKey
from handlers.world.newer import NewerVersion
from runtime.bus.replies import MOST_DETAIL, Refusal

#: The HTTP header of the idempotency key.
KEY = "Idempotency-Key"
NOT_STORED = Refusal(
    code="log_unavailable", status=503, detail="the log cannot store this now (its disk may be full); try again"
)
VAULT_CLOSED = Refusal(
    code="vault_closed",
    status=503,
    detail="secrets cannot be sealed: the handlers' master key is wrong (NEBULA_MASTER_KEY_FILE)",
)
NEWER = Refusal(
    code="newer_version",
    status=503,
    detail="this resource has events of a newer version, which these handlers do not know: upgrade them, or try again "
    "if others are of that version",
)
DELETED = Refusal(code="vm_deleted", status=410, detail="this VM was deleted")


def refusal(error: Exception) -> Refusal | None:
    """The problem for the sender of a request; None for an exception that is a bug of the platform."""
    match error:
        case KeyReused():
            detail = f"this {KEY} was used before, {error.used_for}; use a new key"
            return _refused(error, detail, KEY)
        case Rejected(code="vm_deleted"):
            return _refused(error, f"{error.detail}; its earlier states can be read with ?at=", error.field)
        case Rejected():
            return _refused(error, error.detail, error.field)
        case Unavailable() | VaultUnavailable() | Conflict():
            return NOT_STORED
        case WrongMasterKey():
            return VAULT_CLOSED
        case NewerVersion():
            return NEWER
        case Erased():
            return DELETED
        case _:
            return None


def _refused(error: Rejected, detail: str, field: str | None) -> Refusal:
    return Refusal.model_construct(
        code=error.code, status=status(error.category), detail=detail[:MOST_DETAIL], field=field
    )


def status(category: Category) -> int:
    """The status of a refusal in the command protocol: the HTTP status of the API's answer."""
    match category:
        case Category.CONFLICT:
            return 409
        case Category.INVALID:
            return 422
        case Category.NOT_FOUND:
            return 404
        case Category.GONE:
            return 410
        case Category.UNAUTHORIZED:
            return 401
        case Category.FORBIDDEN:
            return 403
        case Category.TOO_LARGE:
            return 413
        case Category.UNAVAILABLE:
            return 503


def too_large(args: Mapping[str, object], error: TooLarge | TooMany) -> Rejected:
    """The refusal of a command whose event would be too large. It names the largest argument."""
    sizes = {name: len(to_json(value)) for name, value in args.items()}
    field = max(sizes, key=lambda name: sizes[name], default=None)
    largest = f"{field} has {sizes[field]} bytes; make it shorter" if field else str(error)
    detail = f"the request is larger than one event can be: {largest}"
    return Rejected("request_too_large", detail, Category.TOO_LARGE, field=field)
