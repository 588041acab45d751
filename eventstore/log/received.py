"""Converts messages from the server to `Recorded`, without the headers that belong to storage."""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from nats.aio.msg import Msg

from eventstore.log.envelope import Raw, Recorded
from eventstore.log.layout import STORED_AT, layout
from eventstore.log.macs import EventKeys
from runtime.bus.headers import FIRST_LINE, Odd, parsed

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_ON = "Nats-Expected-Last-Subject-Sequence-Subject"
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


def direct(msg: Msg, event_keys: EventKeys | None = None) -> Recorded:
    """A message from the answer to a direct get."""
    return stored(msg.headers or {}, msg.data, event_keys)


def stored(headers: Mapping[str, str], body: bytes, event_keys: EventKeys | None = None) -> Recorded:
    """A message from its headers in the answer to a direct get, and its body. Raises KeyError or ValueError if these
    are no headers of such an answer.
    """
    return Recorded(
        position=int(headers["Nats-Sequence"]),
        subject=headers["Nats-Subject"],
        headers=own(headers),
        body=body,
        stored_at=first_stored(headers) or datetime.fromisoformat(headers["Nats-Time-Stamp"]),
        raw=raw_of(headers["Nats-Subject"], headers),
        event_keys=event_keys,
    )


def is_status(headers: Mapping[str, str]) -> bool:
    """Whether it is a status message of the server. A stored message may have a status too, but
    always has a sequence.
    """
    return "Status" in headers and "Nats-Sequence" not in headers


def from_api(message: dict[str, Any], event_keys: EventKeys | None = None) -> Recorded:
    """A message from the answer of the stream's leader."""
    headers = parsed(base64.b64decode(message.get("hdrs", ""))) or {}
    return Recorded(
        position=int(message["seq"]),
        subject=message["subject"],
        headers=own(headers),
        body=base64.b64decode(message.get("data", "")),
        stored_at=first_stored(headers) or datetime.fromisoformat(message["time"]),
        raw=raw_of(message["subject"], headers),
        event_keys=event_keys,
    )


def first_stored(headers: Mapping[str, str]) -> datetime | None:
    """When a restored event was stored originally; None if it was not restored. The server's own time is of the
    restore.
    """
    stamp = headers.get(STORED_AT)
    if not stamp:
        return None
    try:
        found = datetime.fromisoformat(stamp)
    except ValueError:  # no restore has written it
        return None
    return found.astimezone(UTC) if found.tzinfo is not None and 1970 <= found.year < 9999 else None


def own(headers: Mapping[str, str]) -> dict[str, str]:
    """The event's own headers, without those that belong to storage."""
    kept = dict(headers)
    for name in layout(tuple(headers)).of_storage:
        del kept[name]
    return kept


def raw_of(subject: str, headers: Mapping[str, str]) -> Raw | None:
    """The bytes of a message's subject and own headers, if strings and a dictionary cannot
    represent them; else None.
    """
    if not isinstance(headers, Odd):
        return None
    first, *lines = headers.block.split(b"\r\n")
    kept = [line for line in lines if line and not line.startswith((b"Nats-", STORED_AT.encode() + b":"))]
    plain = [f"{name}: {value}".encode() for name, value in own(headers).items()]
    exact = subject.encode()
    for line in lines:
        if line.startswith(b"Nats-Subject: "):
            exact = line[len(b"Nats-Subject: ") :]
    whole = first == FIRST_LINE and kept == plain and exact == subject.encode()
    if whole and not _CONTROL.search(b"".join([exact, *kept])):
        return None
    return Raw(exact, b"\r\n".join([first, *kept, b"", b""]))
