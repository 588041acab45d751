"""Items of messages in the form in which handlers write them: made from the header block, without an object for each
message.

Nearly all messages are of a few forms, and a form is a sequence of header names. What depends on the names alone is
computed once for each form. A message that is unusual in any way gets no item here, and is looked at closely
(`preparing.py`).
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from domain.kind import SYSTEM, Scope, nobody
from domain.kinds import KINDS
from eventstore.log.digest import digest_of
from eventstore.log.envelope import Address, address
from eventstore.log.judge import REQUIRED, time_in_bounds, wrong_values
from eventstore.log.layout import STORED_AT, layout
from eventstore.log.macs import MAC, EventKeys
from eventstore.log.upcast import TYPE_VERSION
from projections.database import LONGEST
from projections.prepared import Item
from runtime.bus.headers import usual
from runtime.text.iso import iso

_STORAGE = ("Nats-Sequence", "Nats-Subject", "Nats-Time-Stamp")
_CONTEXT = ("ce-actor", "ce-credential", "ce-requestid", "ce-operationid", "ce-causationid", "ce-traceparent")
"""In the order of the fields of an item's context."""
_MOST_FORMS = 256


Values = tuple[str | None, ...]
Getter = Callable[[Values], tuple[Any, ...]]


class Form(NamedTuple):
    """What depends on the names of a message's headers. Each function takes the values, with None after the last one.

    `needed`: names and indexes of the headers that the event needs. `digested`, `text`: the values that the digest
    covers, and their format. `own`, `headers`: the values of the event's own headers, and their format as JSON.
    """

    storage: Getter
    required: Getter
    context: Getter
    mac: int
    of_type: int
    needed: Sequence[tuple[str, int]]
    digested: Getter
    text: str
    own: Getter
    headers: str


class Place(NamedTuple):
    """What depends on the subject of a message. `copied`: the columns project, kind and id of the audit index.

    `owner`: the project whose members may see it; None if that depends on the state of the aggregate.
    """

    expected: Address
    copied: str
    owner: str | None


@lru_cache(maxsize=_MOST_FORMS)
def form_of(names: tuple[str, ...]) -> Form | None:
    """The form of messages with these header names; None for names that handlers do not write."""
    found = layout(names)
    if not {*_STORAGE, *REQUIRED} <= set(names) or STORED_AT in names:
        return None
    at = {name: index for index, name in enumerate(names)}
    own = [name for name in names if name not in found.of_storage]

    def values(of: Sequence[str]) -> Getter:
        return itemgetter(*(at.get(name, -1) for name in of))

    return Form(
        storage=values(_STORAGE),
        required=values(REQUIRED),
        context=values(_CONTEXT),
        mac=at.get(MAC, -1),
        of_type=at.get(TYPE_VERSION, -1),
        needed=tuple((name, at[name]) for name in ("ce-type", TYPE_VERSION, "ce-actor") if name in at),
        digested=values(found.digested),
        text=found.text,
        own=values(own),
        headers="{" + ",".join(f'"{name.replace("%", "%%")}":"%s"' for name in own) + "}",
    )


@lru_cache(maxsize=4096)
def place_of(subject: str) -> Place | None:
    """The place of a message with this subject; None if no event has such a subject."""
    try:
        expected = address(subject)
    except ValueError:
        return None
    project, kind, id_ = expected.ref
    return Place(expected, f"{project}\t{kind}\t{id_}", owner(project, kind))


def owner(project: str, kind: str) -> str | None:
    """The project whose members may see an event; None if that depends on the state of its aggregate."""
    known = KINDS.get(kind)
    if known is None:
        return project
    if known.scope is Scope.CLOUD and not (known.owner is nobody and project == SYSTEM):
        return None
    return known.owner_of(project, None)


def item(block: bytes, content: bytes, event_keys: EventKeys | None) -> Item | None:
    """The item of a message of a usual form that is right. Raises ValueError if its times or numbers cannot be read."""
    found = usual(block)
    if found is None or b"%" in block or b'"' in block or b"\\" in block:
        return None
    names, known = found
    form = form_of(names)
    if form is None:
        return None
    values: Values = (*known, None)
    sequence, subject, stamp = form.storage(values)
    required, (written_by, *context) = form.required(values), form.context(values)
    actor, (_, request, operation, _, _) = written_by or "", context
    place = place_of(subject)
    _, _, type_, _, written, version, previous = required
    if place is None or max(map(len, (type_, actor, request or "", operation or ""))) > LONGEST:
        return None
    time, stored = datetime.fromisoformat(written), datetime.fromisoformat(stamp)
    if time.tzinfo is not UTC or stored.tzinfo is not UTC or not time_in_bounds(time):
        return None
    if wrong_values(place.expected, required, values[form.of_type]) is not None:
        return None
    position, digest = int(sequence), digest_of(form.text % (subject, *form.digested(values)), content)
    if event_keys is not None and event_keys.fault(position, digest, values[form.mac]) is not None:
        return None
    copied = b""
    if place.owner is not None:
        copied = (
            f"{position}\t{iso(time)}\t{iso(stored)}\t{place.copied}\t{type_}\t{actor}\t{operation or _NULL}\t"
            f"{request or _NULL}\t{subject}\t{form.headers % form.own(values)}\t\\\\x{content.hex()}\t{place.owner}\n"
        ).encode()
    return (
        *(position, subject, written, int(version), previous, digest),
        {name: known[index] for name, index in form.needed},
        (actor, *context),
        copied,
    )


_NULL = "\\N"
