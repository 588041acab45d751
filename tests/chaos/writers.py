"""Writers that append in every way the platform does, and hold on until they know what came of it."""

import asyncio
import random
from collections.abc import Callable, Sequence

from domain.base import Event
from domain.project import ProjectRenamed
from eventstore.log.envelope import Context, Recorded, Ref
from eventstore.log.store import Change, Conflict, EventStore, Tip, Unavailable
from tests.chaos.ledger import Draft, Ledger
from tests.eventstore.log import AT

PROJECTS = ("red", "green", "blue")
OWN = 12
"""Aggregates that a writer keeps growing; older ones are left as they are."""


class Writer:
    """Appends until `over`. What it does is chosen by the seed; what comes of it is not.

    `stores` are two clients of the same log: a patient one, which learns what came of an append by itself, and one
    that soon gives up, so that the writer has to send again and to read back.
    """

    def __init__(self, name: str, seed: int, stores: Sequence[EventStore], ledger: Ledger) -> None:
        self.over = False
        self.era = 0
        self._name = name
        self._stores = stores
        self._ledger = ledger
        self._chance = random.Random(f"{seed} {name}")
        self._context = Context(actor=name)
        self._tips: list[Tip] = []
        self._made = 0
        self._marks = 0
        self._last: Draft | None = None

    async def run(self) -> None:
        ways = {
            self._single: 30,
            self._several: 15,
            self._together: 15,
            self._contended: 15,
            self._duel: 5,
            self._burst: 6,
            self._again: 8,
            self._twice: 6,
        }
        while not self.over:
            [way] = self._chance.choices(list(ways), list(ways.values()))
            await way()

    # ── what they do ────────────────────────────────────────────────────────────────────────────────────────────

    async def _single(self) -> None:
        """One event: a publish, or part of a group commit."""
        await self._grow([self._own()], 1)

    async def _several(self) -> None:
        """Several events of one aggregate: an atomic batch."""
        await self._grow([self._own()], self._chance.randint(2, 5))

    async def _together(self) -> None:
        """Two aggregates that stand or fall together."""
        await self._grow([self._own(), self._own()], self._chance.randint(1, 2))

    async def _contended(self) -> None:
        """Onto an aggregate that all writers want, alone or together with an own one."""
        project = self._chance.choice(PROJECTS)
        ref = Ref(project, "project", f"shared-{project}-{self.era}")
        with_own = self._chance.random() < 0.5
        tip = Tip(ref)
        for recorded in await self._history(ref):
            tip = tip.after(recorded)
        await self._grow([tip, self._own()] if with_own else [tip], 1)

    async def _duel(self) -> None:
        """Two clients, the same tip, different events."""
        tip = self._own()
        rivals = [self._draft([tip], 1) for _ in self._stores]
        await asyncio.gather(*(self._settle(draft, [store]) for draft, store in zip(rivals, self._stores, strict=True)))

    async def _burst(self) -> None:
        """So many at once that they are stored in groups; among them one that was acknowledged before."""
        tips = [self._own() for _ in range(self._chance.randint(10, 20))]
        store = [self._chance.choice(self._stores)]
        sending = [self._settle(self._draft([tip], 1), store) for tip in tips]
        if self._last is not None:
            sending.insert(self._chance.randrange(len(sending)), self._repeat(self._last, store))
        await asyncio.gather(*sending)

    async def _again(self) -> None:
        """What was acknowledged, once more: as a client does that lost the answer."""
        if self._last is not None:
            await self._repeat(self._last, self._stores)

    async def _twice(self) -> None:
        """The same append from two clients at once."""
        draft = self._draft([self._own()], self._chance.choice([1, 1, 3]))
        await asyncio.gather(*(self._settle(draft, [store]) for store in self._stores))

    # ── how ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _own(self) -> Tip:
        """An aggregate that nobody else appends to, now and then a new one; it comes back when it was stored."""
        if self._tips and self._chance.random() < 0.8:
            return self._tips.pop(self._chance.randrange(len(self._tips)))
        self._made += 1
        return Tip(Ref(self._chance.choice(PROJECTS), "project", f"{self._name}-{self._made}"))

    def _draft(self, tips: Sequence[Tip], count: int) -> Draft:
        self._marks += 1
        return self._ledger.enter(f"{self._name} {self._marks}", tips, self._events(count))

    def _events(self, count: int) -> Callable[[str], list[Event]]:
        filling = "x" * self._chance.choice([0, 0, 0, 100, 3000])
        return lambda mark: [
            ProjectRenamed(at=AT, operation=mark, fingerprint="f", name=f"{n}{filling}") for n in range(count)
        ]

    async def _grow(self, tips: Sequence[Tip], count: int) -> None:
        await self._settle(self._draft(tips, count), self._stores)

    async def _settle(self, draft: Draft, stores: Sequence[EventStore]) -> None:
        """Send it until it is known what came of it. A refusal speaks for that sending only: what was sent before
        may have been stored, so then it is read back.
        """
        attempt, ledger = draft.attempt, self._ledger
        unknown = False
        while True:
            try:
                stored = await self._chance.choice(stores).append(draft.changes, self._context)
            except Unavailable:
                unknown = True
                ledger.unknown += 1
                continue
            except Conflict:
                stored = await self._read_back(draft) if unknown else []
                ledger.found += bool(stored)
            break
        if not stored:
            attempt.refused = True
            return
        ledger.answers += 1
        attempt.acknowledge(stored)
        self._last = draft
        if len(attempt.told) == 1:
            self._tips += [tip for tip in _tips(draft.changes, stored) if tip.ref.id.startswith(f"{self._name}-")]
            del self._tips[:-OWN]

    async def _repeat(self, draft: Draft, stores: Sequence[EventStore]) -> None:
        """Send what is known to be stored. It may be refused, or acknowledged where it stands."""
        self._ledger.repeated += 1
        try:
            stored = await self._chance.choice(stores).append(draft.changes, self._context)
        except (Conflict, Unavailable):
            return
        draft.attempt.acknowledge(stored)

    async def _read_back(self, draft: Draft) -> list[Recorded]:
        """What stands of it."""
        found = []
        for change in draft.changes:
            history = await self._history(change.tip.ref)
            found += [recorded for recorded in history if recorded.context.operation == draft.attempt.mark]
        return found

    async def _history(self, ref: Ref) -> list[Recorded]:
        while True:
            try:
                return await self._stores[0].history(ref)
            except Unavailable:
                continue


def _tips(changes: Sequence[Change], stored: Sequence[Recorded]) -> list[Tip]:
    """The tips of these aggregates behind what was stored."""
    tips = {change.tip.ref.subject: change.tip for change in changes}
    for recorded in stored:
        tips[recorded.subject] = tips[recorded.subject].after(recorded)
    return list(tips.values())
