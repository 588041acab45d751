"""What follows from the names of a message's headers alone. Events have few sets of names, so it is worked out once."""

from dataclasses import dataclass

STORED_AT = "Nebula-Stored-At"

_MOST, _MOST_CHARACTERS = 256, 2000
_layouts: dict[tuple[str, ...], "Layout"] = {}


@dataclass(frozen=True, slots=True)
class Layout:
    """`of_storage`: those that are not the message's own. `digested`: those that a digest covers.

    `text` is what the digest is of, up to the body: to be filled with the subject and the values of `digested`.
    """

    of_storage: tuple[str, ...]
    digested: tuple[str, ...]
    text: str


def layout(names: tuple[str, ...]) -> Layout:
    """Names in the order of the message. What anybody may have written is kept only while it is little."""
    found = _layouts.get(names)
    if found is None:
        found = _made(names)
        if len(_layouts) >= _MOST:
            _layouts.clear()
        if sum(map(len, names)) <= _MOST_CHARACTERS:
            _layouts[names] = found
    return found


def _made(names: tuple[str, ...]) -> Layout:
    """Servers and others may add names that begin with `Nats-`, beside those that we send with an event."""
    digested = sorted(name for name in names if name.startswith("ce-"))
    return Layout(
        of_storage=tuple(name for name in names if name.startswith("Nats-") or name == STORED_AT),
        digested=tuple(digested),
        text="\n".join(["%s", *[name.replace("%", "%%") + ": %s" for name in digested], "", ""]),
    )
