"""The log as it should be: a list. What `EventStore` and `follow` are compared with."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from typing import TypeVar

from domain.base import Event
from eventstore.log.digest import digest
from eventstore.log.envelope import Context, Recorded, Ref, seal
from eventstore.log.store import PAGE, Change, Conflict, Loaded, Tip, is_up_to
from tests.eventstore.log import AT, matches

S = TypeVar("S")


class ModelStore:
    """In memory, with the interface of `EventStore`; never unavailable."""

    def __init__(self) -> None:
        self.log: list[Recorded] = []
        self._grown = asyncio.Event()

    async def append(self, changes: Sequence[Change], context: Context) -> list[Recorded]:
        changes = [change for change in changes if change.events]
        for change in changes:
            if self._last(change.alone or change.tip.ref.subject) != change.tip.position:
                raise Conflict(change.tip.ref.subject)
        events: list[Recorded] = []
        for change in changes:
            version, previous, subject = change.tip.version, change.tip.digest, change.tip.ref.subject
            for event in change.events:
                version += 1
                headers, body = seal(change.tip.ref, version, previous, event, context)
                previous = digest(subject, headers, body)
                events.append(Recorded(len(self.log) + len(events) + 1, subject, headers, body, AT))
        ids = [recorded.id for recorded in (*self.log, *events)]
        if len(set(ids)) < len(ids):  # an id belongs to the project that used it first
            raise Conflict(changes[0].tip.ref.subject)
        self.log += events
        self._grown.set()
        return events

    async def history(self, ref: Ref, *, at: int | datetime | None = None) -> list[Recorded]:
        return [r for r in self.log if r.subject == ref.subject and (at is None or is_up_to(r, at))]

    async def load(self, ref: Ref, evolve: Callable[[S | None, Event], S | None]) -> Loaded[S]:
        state: S | None = None
        tip = Tip(ref)
        for recorded in await self.history(ref):
            state = evolve(state, recorded.event)
            tip = tip.after(recorded)
        return Loaded(state, tip)

    async def read(self, after: int, filter_: str | None = None, limit: int = PAGE) -> list[Recorded]:
        return self.seen(after, [filter_] if filter_ else None)[:limit]

    async def last_position(self) -> int:
        return len(self.log)

    async def follow(self, after: int, filters: list[str] | None = None) -> AsyncGenerator[list[Recorded], None]:
        while True:
            self._grown.clear()
            if batch := self.seen(after, filters):
                after = batch[-1].position
                yield batch
            else:
                await self._grown.wait()

    def seen(self, after: int, filters: list[str] | None = None) -> list[Recorded]:
        """What a feed has to have handed out by now."""
        return [
            r
            for r in self.log
            if r.position > after and (filters is None or any(matches(f, r.subject) for f in filters))
        ]

    def _last(self, filter_: str) -> int:
        return max((r.position for r in self.log if matches(filter_, r.subject)), default=0)
