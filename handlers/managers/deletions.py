"""Deletions: what has begun is finished, or given up when the aggregate was in use where the deletion began.

Level-triggered, as all managers: any number of handlers come to the same verdict (`references.py`), one of them appends
it, and a handlers process that ends in between leaves the rest to the others, or to its successor.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from domain import image, project, tag
from domain.base import Command
from domain.image import FinishImageDeletion
from domain.project import FinishProjectDeletion
from domain.tag import FinishTagDeletion
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore
from handlers.apply import apply, now
from handlers.managers.driver import Driver
from handlers.references import Users
from handlers.world import EVOLVE, Changes, World
from runtime import logs

log = logs.get(__name__)


def finish_project(ref: Ref, users: Users) -> Command:
    return FinishProjectDeletion(project=ref.id, at=now(), vms=len(users.vms), images=tuple(sorted(users.images)))


def finish_tag(ref: Ref, users: Users) -> Command:
    return FinishTagDeletion(tag=ref.id, at=now(), vms=len(users.vms), projects=len(users.projects))


def finish_image(ref: Ref, users: Users) -> Command:
    return FinishImageDeletion(image=ref.id, at=now(), used_by=len(users.vms))


FINISH: Mapping[str, tuple[Callable[[Ref, Users], Command], Callable[[Any, Any], Any]]] = {
    "project": (finish_project, project.decide),
    "tag": (finish_tag, tag.decide),
    "image": (finish_image, image.decide),
}


class Deletions:
    """Finishes deletions as soon as the world shows that they have begun."""

    def __init__(self, store: EventStore, world: World) -> None:
        self._store = store
        self._world = world
        self._watch = world.watch(FINISH)

    def driver(self) -> Driver:
        return Driver("deletions", self._look, watch=self._watch)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        for ref in list(self._world.references.deletions):
            driver.each(f"{ref.kind} {ref.id}", partial(self._finish, ref))

    async def _finish(self, ref: Ref) -> None:
        """In the name of whoever asked for it."""
        deletion = self._world.references.deletions.get(ref)
        if deletion is None:
            return
        finish, decide = FINISH[ref.kind]
        context = replace(deletion.begun.context, operation=None, causation=deletion.begun.id)
        command = finish(ref, deletion.users)
        known = self._world.get(ref)
        applied = await apply(self._store, ref, decide, EVOLVE[ref.kind], command, context, known=known)
        for recorded in applied.events:
            log.info("deletion decided", kind=ref.kind, id=ref.id, type=recorded.type, position=recorded.position)
        await self._world.reached(applied.tip.position)
