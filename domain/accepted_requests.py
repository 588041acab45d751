"""The operations that an aggregate has accepted. So a repeat of a request is recognised for ever.

Their number only grows. So the map is a persistent one: the map after a command shares almost all its nodes with the
map before it. It is a part of the state, but of no row and no reply.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BeforeValidator, InstanceOf, PlainSerializer
from rpds import HashTrieMap

from domain.base import Category, Rejected


class AcceptedRequest(NamedTuple):
    """What the aggregate keeps of an operation."""

    verb: str
    fingerprint: str


if TYPE_CHECKING:
    Map = HashTrieMap[str, AcceptedRequest]
else:  # HashTrieMap is not generic at run time
    Map = HashTrieMap


def to_map(value: Any) -> Any:
    """The map made of a mapping of JSON values; any other value unchanged."""
    if isinstance(value, HashTrieMap) or not isinstance(value, Mapping):
        return value
    return HashTrieMap({id_: AcceptedRequest(**known) for id_, known in value.items()})


def to_dict(known: Map) -> dict[str, dict[str, str]]:
    return {id_: one._asdict() for id_, one in sorted(known.items())}


Operations = Annotated[
    InstanceOf[Map],
    BeforeValidator(to_map),
    PlainSerializer(to_dict, return_type=dict[str, dict[str, str]]),
]
"""What the aggregate keeps of each operation, by its id."""
NONE: Map = HashTrieMap()

#: The name of the state's field, which rows, replies and views leave out.
FIELD = "operations"


class KeyReused(Rejected):
    """The refusal of a key that was used for another request. `used_for`: the end of a sentence, as "to create …"."""

    def __init__(self, used_for: str) -> None:
        detail = f"this key was used before, {used_for}; use a new key"
        super().__init__("idempotency_key_reused", detail, Category.INVALID, field="key")
        self.used_for = used_for


def same_request(known: AcceptedRequest | None, verb: str, fingerprint: str) -> bool:
    """Whether this request was accepted before. Raises KeyReused if its id was used for another request."""
    if known is None:
        return False
    if known.verb != verb or known.fingerprint != fingerprint:
        raise KeyReused(f"for a different {known.verb} request")
    return True
