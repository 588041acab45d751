"""Messages of the log that another process has judged (`preparing.py`), so that the runner only folds them."""

from collections.abc import Mapping
from datetime import datetime

from domain.base import Event
from eventstore.log.envelope import Context, Recorded
from eventstore.log.macs import EventKeys
from eventstore.log.received import own, stored
from eventstore.log.upcast import opened
from runtime.bus.bulk import Bytes
from runtime.bus.headers import parsed
from runtime.lazy import lazy

Item = tuple[int, str, str, int, str, str, dict[str, str], tuple[str | None, ...], bytes]
"""What is known of a message that is right: its position, subject, time, version, previous digest, digest, the headers
that its event needs, its context, and its row of the audit index for COPY. The row is empty if it depends on the state
of the aggregate."""


class Prepared(Recorded):
    """A message of which everything but its body is known to be right. Its headers are parsed when they are needed."""

    copied: bytes
    _block: bytes
    _time: str
    _needed: dict[str, str]
    _context: tuple[str | None, ...]

    def __init__(self, item: Item, message: Bytes, event_keys: EventKeys | None) -> None:
        known = self.__dict__
        known["position"], known["subject"], known["_time"], known["version"], known["previous"] = item[:5]
        known["digest"], known["_needed"], known["_context"], known["copied"] = item[5:]
        known["_block"], known["body"] = message
        known["raw"], known["ours"], known["event_keys"] = None, False, event_keys

    @lazy
    def headers(self) -> Mapping[str, str]:
        return own(parsed(self._block) or {})

    @lazy
    def stored_at(self) -> datetime:
        return stored(parsed(self._block) or {}, self.body).stored_at

    @lazy
    def type(self) -> str:
        return self._needed["ce-type"]

    @lazy
    def time(self) -> datetime:
        return datetime.fromisoformat(self._time)

    @lazy
    def context(self) -> Context:
        actor, *rest = self._context
        return Context(actor or "", *rest)

    @property
    def operation(self) -> str | None:
        return self._context[3]

    @property
    def actor(self) -> str:
        return self._context[0] or ""

    @property
    def request(self) -> str | None:
        return self._context[2]

    @lazy
    def event(self) -> Event:
        return opened(self._needed, self.body)
