"""The operations that an aggregate has accepted, so that asking again is safe for ever.

They only grow, with every command. So the map is persistent: the one after a command shares all but a path with the
one before. It is part of the state, but of no row and no reply.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BeforeValidator, InstanceOf, PlainSerializer
from rpds import HashTrieMap

from domain.base import Category, Rejected


class Known(NamedTuple):
    """What is remembered of an operation."""

    verb: str
    fingerprint: str


if TYPE_CHECKING:
    Map = HashTrieMap[str, Known]
else:  # not generic when it runs
    Map = HashTrieMap


def mapped(value: Any) -> Any:
    """The map that a mapping of plain values stands for; anything else as it is."""
    if isinstance(value, HashTrieMap) or not isinstance(value, Mapping):
        return value
    return HashTrieMap({id_: Known(**known) for id_, known in value.items()})


def plain(known: Map) -> dict[str, dict[str, str]]:
    return {id_: one._asdict() for id_, one in sorted(known.items())}


Operations = Annotated[
    InstanceOf[Map],
    BeforeValidator(mapped),
    PlainSerializer(plain, return_type=dict[str, dict[str, str]]),
]
"""What is known of each operation, by its id."""
NONE: Map = HashTrieMap()

#: The field of a state that rows, replies and views leave out.
FIELD = "operations"


class KeyReused(Rejected):
    """The refusal of a key that stands for another request. `what_for`: what it was used for, as in "to create …"."""

    def __init__(self, what_for: str) -> None:
        detail = f"this key was used before, {what_for}; use a new key"
        super().__init__("idempotency_key_reused", detail, Category.INVALID, field="key")
        self.what_for = what_for


def same_request(known: Known | None, verb: str, fingerprint: str) -> bool:
    """Whether this operation was accepted before; False when it is new.

    Raises KeyReused when its id was used before for something else.
    """
    if known is None:
        return False
    if known.verb != verb or known.fingerprint != fingerprint:
        raise KeyReused(f"for a different {known.verb} request")
    return True
