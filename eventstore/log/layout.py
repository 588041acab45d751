"""Values that depend only on the names of a message's headers. Events have few sets of names, so they are cached."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

STORED_AT = "Nebula-Stored-At"

_MOST, _MOST_CHARACTERS = 256, 2000
_layouts: dict[tuple[str, ...], "Layout"] = {}


@dataclass(frozen=True, slots=True)
class Layout:
    """`of_storage`: names of headers that the server or a restore added. `digested`: names that a digest covers.

    `text`: the digested text up to the body, a format for the subject and what `values` takes from the headers.
    """

    of_storage: tuple[str, ...]
    digested: tuple[str, ...]
    values: Callable[[Mapping[str, str]], tuple[str, ...]]
    text: str


def layout(names: tuple[str, ...]) -> Layout:
    """The layout of these names, in the order of the message. The cache is limited, since anybody
    may send any names.
    """
    found = _layouts.get(names)
    if found is None:
        found = _made(names)
        if len(_layouts) >= _MOST:
            _layouts.clear()
        if sum(map(len, names)) <= _MOST_CHARACTERS:
            _layouts[names] = found
    return found


def _made(names: tuple[str, ...]) -> Layout:
    """Headers whose names begin with `Nats-` belong to storage: we send some with an event, and servers add others."""
    digested = sorted(name for name in names if name.startswith("ce-"))
    return Layout(
        of_storage=tuple(name for name in names if name.startswith("Nats-") or name == STORED_AT),
        digested=tuple(digested),
        values=_getter(digested),
        text="\n".join(["%s", *[name.replace("%", "%%") + ": %s" for name in digested], "", ""]),
    )


def _getter(names: Sequence[str]) -> Callable[[Mapping[str, str]], tuple[str, ...]]:
    """Takes the values of these names from headers."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda headers: tuple([headers[name] for name in names])
