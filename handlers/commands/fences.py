"""Fences: checks before a command is answered, if it depends on other aggregates (docs/decisions.md, 25).

The create of a VM is one message, which cannot carry expectations about project, image, tags and flavor. So they are
checked after the append: they must not have changed between the lookup and the position of the create. The deletion of
a project, tag, image or flavor is answered when it is decided.

All rules about two aggregates, and what ensures each of them:

| rule | ensured by |
|---|---|
| a new VM has an existing project, image, flavor and existing tags | this file, and `world/references.py` |
| so has an image (its project), a project or VM (new tags), a rebuilt VM (its image) | `basis` of `apply` |
| so has a role in a project (its user or service account) | `basis` of `apply` |
| a deleted project, tag, image, flavor or account has no users | `world/references.py`, `managers/deletions.py` |
| a token is worthless for a later account with the id of its own | its `incarnation`: no order matters |
| what a caller lost 0.25 s before a command arrives does not count | `permissions.py`: the log's end is asked |
| nothing of an earlier one with its id is in a new project | its number can only fall; void VMs do not count |
| the id of a VM, or a caller's key, is used once | `alone` (`keys.py`): the server compares all subjects of an id |
| a VM is placed on a node that has room, is not cordoned and not lost | one batch with the node's own event |
| a VM that is resized has room on its node | one batch with the node's own event (`lookups.reservation`) |
| a VM boots from a new image only if its node can run it | `lookups.NamedImages`: the node has not changed |
| a VM becomes forgotten or lost only while its node is lost | `World.lost_node`: the node has not changed |

The check whether any node could ever hold a VM (`check_attainable`) only helps the caller: placement decides. A process
that does not know a new lease yet may accept a report of the earlier one; the next report under the new lease wins.
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

#: Seconds to wait for messages to arrive before they are read from the log.
READ_AFTER = 0.25
#: Maximum number of seconds until a deletion is decided, unless the log is unavailable.
PATIENCE = 5.0

Basis = Mapping[Ref, Tip]
"""The aggregates that a decision depends on, with the last event of each that was known."""


class Fences:
    """Decides by the order of the log whether a create counts, and waits for the result of a deletion."""

    def __init__(self, store: EventStore, world: World) -> None:
        self._store = store
        self._world = world
        self._reading = asyncio.Lock()

    async def confirm(self, ref: Ref, applied: Applied[Any], basis: Basis, context: Context) -> None:
        """Return if a VM's create counts; otherwise drop the VM and raise Rejected.

        Raises Unavailable if that cannot be found out now: a repeat of the create is checked again.
        """
        position = applied.tip.position
        if applied.events:
            await self._receive_up_to(position)
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

    async def _receive_up_to(self, position: int) -> None:
        """Wait until all messages up to a position are received; read them if they do not arrive soon.

        Only one command reads at a time, since many wait when this process is busy. It reads for all of them.
        """
        frontier = self._world.frontier
        if frontier.position >= position:
            return
        try:
            async with asyncio.timeout(READ_AFTER):
                await frontier.wait_for(position)
        except TimeoutError:
            async with self._reading:
                if frontier.position < position:
                    frontier.add_read(await self._store.between(frontier.position, position))

    async def conclude(self, ref: Ref, applied: Applied[Any], operation: str | None) -> Applied[Any]:
        """The result of a deletion that has begun. Raises Rejected if it was given up, Unavailable if it takes long."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._world.until(lambda: self._decided(ref, applied.tip.position, operation))
        except TimeoutError as error:
            raise Unavailable("the deletion is not decided yet; send the same request again") from error
        loaded = self._world.get(ref)
        if loaded.state is not None and operation in loaded.state.operations:
            return Applied(loaded.state, loaded.tip, applied.events)
        raise await self._refusal(ref)

    def _decided(self, ref: Ref, position: int, operation: str | None) -> bool:
        state = self._world.get(ref).state
        pending = state is not None and state.closing is not None and state.closing.operation == operation
        return self._world.position >= position and not pending

    async def _refusal(self, ref: Ref) -> Rejected:
        """Why the latest deletion was given up."""
        for recorded in reversed(await self._store.history(ref, fresh=True)):
            code, detail = (getattr(recorded.event, name, None) for name in ("code", "detail"))
            if recorded.type.endswith("DeletionGivenUp") and code and detail:
                return Rejected(code, detail)
        raise Conflict(ref.subject)
