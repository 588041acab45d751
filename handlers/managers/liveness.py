"""Liveness: a node that is silent too long is lost, and so is what is known of its VMs, until it speaks again.

Silence is measured here, on this process's own clock, from the last heartbeat or from the start of this process,
whichever is later: handlers that just started accuse nobody.
"""

import asyncio
import time

from domain import node, vm
from domain.contract import Heartbeat
from domain.node import LoseNode, RecoverNode
from domain.vm import VISIBLE, LoseVm
from eventstore.envelope import Ref
from eventstore.store import Conflict, EventStore, Unavailable
from handlers.apply import apply, manager, now
from handlers.world import World
from runtime import logs, subjects

log = logs.get(__name__)


class Liveness:
    """When each node was last heard of, in seconds of the monotonic clock."""

    def __init__(self, store: EventStore, world: World, timeout: float) -> None:
        self._store = store
        self._world = world
        self._timeout = timeout
        self._started = time.monotonic()
        self._heard: dict[str, float] = {}
        self._context = manager("liveness")

    def hear(self, beat: Heartbeat) -> None:
        self._heard[beat.node] = time.monotonic()

    def silence(self, node_id: str) -> float:
        return time.monotonic() - max(self._heard.get(node_id, 0.0), self._started)

    async def run(self, *, every: float = 1.0) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await self.round()
            except (Unavailable, Conflict) as error:
                self._started = time.monotonic()  # while the bus is away nobody can be heard
                log.warning("liveness waits for the log", error=str(error))

    async def round(self) -> None:
        for found in self._world.nodes():
            silent = self.silence(found.id)
            ref = Ref(subjects.SYSTEM, "node", found.id)
            if silent > self._timeout and not found.lost:
                command = LoseNode(node=found.id, at=now(), silent_seconds=round(silent, 1))
                await apply(self._store, ref, node.decide, node.evolve, command, self._context, world=self._world)
                log.warning("node lost", node=found.id, silent_seconds=round(silent, 1))
            elif found.lost and found.id in self._heard and silent <= self._timeout:
                back = RecoverNode(node=found.id, at=now())
                await apply(self._store, ref, node.decide, node.evolve, back, self._context, world=self._world)
                log.info("node is back", node=found.id)
        lost = {n.id for n in self._world.nodes() if n.lost}
        if lost:
            await self._lose_vms(lost)

    async def _lose_vms(self, lost: set[str]) -> None:
        for found in list(self._world.vms()):
            if found.node in lost and found.phase in VISIBLE:
                loaded = self._world.vm(found.id)
                if loaded is not None:
                    command = LoseVm(vm=found.id, node=found.node or "", at=now())
                    await apply(
                        self._store, loaded.tip.ref, vm.decide, vm.evolve, command, self._context, world=self._world
                    )
