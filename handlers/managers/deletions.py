"""Deletions: a deletion that has begun is finished, or given up if the aggregate was in use when it began.

Level-triggered, as all managers: all handlers processes come to the same result (`world/references.py`), and one of
them appends it. If a process ends before it has done so, another one appends it.
"""

from dataclasses import replace
from functools import partial

from domain.kinds import KINDS
from domain.references import FinishDeletion
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore
from handlers.apply import apply, now
from handlers.managers.driver import Driver
from handlers.world.watch import Changes
from handlers.world.world import World
from runtime import logs

log = logs.get(__name__)


#: The kinds whose deletion has two steps.
CLOSING = tuple(kind.name for kind in KINDS.values() if kind.closes)


class Deletions:
    """Finishes each deletion as soon as it is in the world."""

    def __init__(self, store: EventStore, world: World) -> None:
        self._store = store
        self._world = world
        self._watch = world.watch(CLOSING)

    def driver(self) -> Driver:
        return Driver("deletions", self._look, watch=self._watch)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        for ref in list(self._world.references.deletions):
            driver.submit(f"{ref.kind} {ref.id}", partial(self._finish, ref))

    async def _finish(self, ref: Ref) -> None:
        """Append the result, with the actor and the request of the caller who began the deletion."""
        deletion = self._world.references.deletions.get(ref)
        if deletion is None:
            return
        kind = KINDS[ref.kind]
        context = replace(deletion.begun.context, operation=None, causation=deletion.begun.id)
        command = FinishDeletion(id=ref.id, at=now(), users=deletion.users)
        known = self._world.get(ref)
        applied = await apply(self._store, ref, kind.decide, kind.evolve, command, context, known=known)
        for recorded in applied.events:
            log.info("deletion decided", kind=ref.kind, id=ref.id, type=recorded.type, position=recorded.position)
        await self._world.reached(applied.tip.position)
