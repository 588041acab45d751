"""What the log knows of the VMs of each node, for nodes that ask for it (`domain/contract/known.py`).

A VM at rest in a phase with a domain has a fact, which the node must see too. One that is off has none. Of all others
handlers await a report: they have a pending operation, failed, are lost, or were forgotten and not removed yet.
"""

import asyncio

from domain.contract import KnownVms, Power
from domain.contract.known import MOST_AWAITED, NOTHING, fact
from domain.vm import Phase, Vm
from handlers.world.world import World

#: The power state of a VM that is at rest in a phase.
POWERS = {Phase.RUNNING: Power.ON, Phase.PAUSED: Power.PAUSED, Phase.SUSPENDED: Power.SUSPENDED}
#: Number of VMs that are looked at before other tasks run.
AT_A_TIME = 256


class Known:
    """The facts of all VMs, kept up to date by `run`. Any handlers process may answer nodes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._watch = world.watch(("vm",))
        #: of each VM its node and its fact; None: a report is awaited
        self._facts: dict[str, tuple[str, int | None]] = {}
        self._digests: dict[str, int] = {}
        self._awaited: dict[str, set[str]] = {}
        self._complete = False

    async def run(self) -> None:
        """Follow the world, for ever."""
        while True:
            changes = await self._watch.next()
            ids = [*self._world.ids("vm"), *self._world.forgotten] if changes.everything else changes.of("vm")
            for number, vm_id in enumerate(ids):
                self._note(vm_id)
                if number % AT_A_TIME == AT_A_TIME - 1:
                    await asyncio.sleep(0)
            self._complete = True

    def of(self, node: str) -> KnownVms | None:
        """What the log knows of the VMs of a node. None while this process has not looked at all VMs."""
        if not self._complete:
            return None
        awaited = self._awaited.get(node, set())
        named = tuple(sorted(awaited)) if len(awaited) <= MOST_AWAITED else None
        return KnownVms(digest=f"{self._digests.get(node, NOTHING):032x}", awaited=named)

    def _note(self, vm_id: str) -> None:
        loaded = self._world.vm(vm_id) or self._world.forgotten.get(vm_id)
        vm = loaded.state if loaded is not None else None
        self._replace(vm_id, None if vm is None or vm.node is None else (vm.node, fact_of(vm)))

    def _replace(self, vm_id: str, new: tuple[str, int | None] | None) -> None:
        old = self._facts.pop(vm_id, None)
        if old is not None:
            node, known = old
            if known is not None:
                self._count(node, known)
            else:
                self._awaited[node].discard(vm_id)
                if not self._awaited[node]:
                    del self._awaited[node]
        if new is not None:
            node, known = new
            if known is None:
                self._awaited.setdefault(node, set()).add(vm_id)
            elif known != NOTHING:
                self._count(node, known)
            else:
                return
            self._facts[vm_id] = new

    def _count(self, node: str, known: int) -> None:
        digest = self._digests.get(node, NOTHING) ^ known
        if digest == NOTHING:
            self._digests.pop(node, None)
        else:
            self._digests[node] = digest


def fact_of(vm: Vm) -> int | None:
    """The fact of a VM; NOTHING if it is off. None: a report about it is awaited."""
    if vm.pending is not None or vm.forgotten is not None:
        return None
    if vm.phase is Phase.STOPPED:
        return NOTHING
    power = POWERS.get(vm.phase)
    return None if power is None else fact(vm.id, vm.epoch, power, vm.booted, vm.resets, vm.addresses)
