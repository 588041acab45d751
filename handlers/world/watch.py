"""The changes of aggregates, collected for the managers."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from domain.kinds import KINDS
from eventstore.log.envelope import Ref


class Watch:
    """The changes of aggregates of some kinds since a manager's last look. At first everything has changed.

    While the manager has to look at everything anyway, single changes are not collected. So a manager that stands by
    needs no memory.
    """

    def __init__(self, kinds: Collection[str] = tuple(KINDS)) -> None:
        self._kinds = kinds
        self._bell = asyncio.Event()
        self._changed: set[Ref] = set()
        self._all = True
        self._bell.set()

    def add(self, ref: Ref) -> None:
        if not self._all and ref.kind in self._kinds:
            self._changed.add(ref)

    def forget(self, ref: Ref) -> None:
        """Remove a change that the manager made itself, knowing all changes before it."""
        self._changed.discard(ref)

    def ring(self, *, everything: bool = False) -> None:
        self._all = self._all or everything
        self._bell.set()

    def nudge(self) -> None:
        """Wake the manager if there are changes."""
        if self._changed:
            self._bell.set()

    async def next(self) -> "Changes":
        """Wait for a change, and return all changes."""
        await self._bell.wait()
        return self.take()

    def take(self) -> "Changes":
        """All changes, without waiting for one."""
        self._bell.clear()
        taken = Changes(frozenset(self._changed), self._all)
        self._changed = set()
        self._all = False
        return taken


@dataclass(frozen=True)
class Changes:
    """The aggregates that changed. `everything`: the manager has to look at the whole world."""

    refs: frozenset[Ref]
    everything: bool

    def of(self, kind: str) -> list[str]:
        return [ref.id for ref in self.refs if ref.kind == kind]
