"""What has to be known before a command is answered, where it depends on other aggregates (docs/decisions.md, 25).

A VM's create is one message, which cannot carry what it expects of project, image and tags. So it is checked behind:
nothing had happened to them between the look at them and the position where the create stands. A deletion is answered
when it is decided.

All rules about two aggregates, and what holds each of them:

| rule | by |
|---|---|
| a VM that is made has a project, an image and tags that are there | this file, and `world/references.py` |
| an image has a project, a project or a VM has tags, a rebuilt VM an image that are there | `basis` of `apply` |
| a project, a tag, an image that is deleted has no user | `world/references.py`, `managers/deletions.py` |
| a project that is made has no VMs of an earlier one | those can only become fewer; void ones do not count |
| the id of a VM, the key of a caller is used once | `alone` (`keys.py`): the server compares all subjects of an id |
| a VM is placed on a node that has room, is not cordoned and not lost | one batch with the node's own event |
| a VM that grows has room on its node | the same (`lookups.reservation`) |
| a VM is rebuilt from an image that its node can run | `lookups.runs_there`: the node has not changed |
| a VM is forgotten, or lost, while its node is lost | `World.lost_node`: the node has not changed |

Whether any node could ever hold a VM (`attainable`) is advice to the caller, and placement decides. A report of an
earlier lease may be taken in by who does not know of the new lease yet: the next report under it counts more.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from domain import vm
from domain.base import Rejected
from domain.vm import DropVm
from eventstore.log.envelope import Context, Ref
from eventstore.log.store import Conflict, EventStore, Tip, Unavailable
from handlers.apply import Applied, apply, now
from handlers.world.world import World

#: Seconds after which the log is read for what should have come by itself.
SOON = 0.25
#: Seconds in which a deletion is decided, unless the log cannot store.
PATIENCE = 5.0

Basis = Mapping[Ref, Tip]
"""The aggregates that a decision was built on, as far as they were known."""


class Fences:
    """Judges by the order of the log."""

    def __init__(self, store: EventStore, world: World) -> None:
        self._store = store
        self._world = world

    async def confirm(self, ref: Ref, applied: Applied[Any], basis: Basis, context: Context) -> None:
        """Return when a VM's create counts; else drop the VM, and raise Rejected.

        Raises Unavailable when it cannot be learned: the same create, asked again, is judged again.
        """
        position = applied.tip.position
        if applied.events:
            await self._heard(position)
            newest = self._world.frontier.newest
            if all(newest(other) == tip.position for other, tip in basis.items()):
                return
        await self._world.reached(position)
        refusal = self._world.references.void.get(ref.id)
        if refusal is None:
            return
        drop = DropVm(vm=ref.id, at=now(), code=refusal.code, detail=refusal.detail)
        await apply(self._store, ref, vm.decide, vm.evolve, drop, context, world=self._world)
        raise refusal

    async def _heard(self, position: int) -> None:
        """Wait until everything up to a position is known, mostly not at all; read it where it does not come."""
        frontier = self._world.frontier
        if frontier.position >= position:
            return
        try:
            async with asyncio.timeout(SOON):
                await frontier.reached(position)
        except TimeoutError:
            if frontier.position < position:
                frontier.heard(await self._store.between(frontier.position, position))

    async def concluded(self, ref: Ref, applied: Applied[Any], operation: str | None) -> Applied[Any]:
        """What became of a deletion that has begun. Raises Rejected when it was given up, Unavailable when that takes
        too long.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await self._world.until(lambda: self._decided(ref, applied.tip.position, operation))
        except TimeoutError as error:
            raise Unavailable("the deletion is not decided yet") from error
        loaded = self._world.get(ref)
        if loaded.state is not None and operation in loaded.state.operations:
            return Applied(loaded.state, loaded.tip, applied.events)
        raise await self._given_up(ref)

    def _decided(self, ref: Ref, position: int, operation: str | None) -> bool:
        state = self._world.get(ref).state
        waits = state is not None and state.closing is not None and state.closing.operation == operation
        return self._world.position >= position and not waits

    async def _given_up(self, ref: Ref) -> Rejected:
        for recorded in reversed(await self._store.history(ref, fresh=True)):
            code, detail = (getattr(recorded.event, name, None) for name in ("code", "detail"))
            if recorded.type.endswith("DeletionGivenUp") and code and detail:
                return Rejected(code, detail)
        raise Conflict(ref.subject)
