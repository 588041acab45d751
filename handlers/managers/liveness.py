"""Liveness: a node that is silent too long is lost, and so is what is known of its VMs, until it speaks again.

Silence is measured here, on this process's own clock, from the last heartbeat or from the moment at which this process
could hear nodes again, whichever is later: handlers that just started, or were cut off from the bus, accuse nobody.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from nats.aio.client import Client

from domain import node, vm
from domain.base import Event, Rejected
from domain.contract import Heartbeat
from domain.node import LoseNode, Node, RecoverNode, Silence
from domain.vm import VISIBLE, LoseVm, Vm
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore, Tip, Unavailable
from handlers.apply import apply, manager, now
from handlers.managers.driver import Driver
from handlers.world.world import Changes, World
from runtime import logs, subjects
from runtime.bus.malformed import Malformed
from runtime.clock_offset import ClockOffset, warning

log = logs.get(__name__)

#: Bytes of a node's disk below which it counts as full.
ROOM = 32 * 1024**2
#: Seconds after which a lease that is not known here was never given; and the nodes of such leases that are remembered.
UNHEARD_OF, MOST_UNHEARD_OF = 5.0, 1000


class Liveness:
    """When each node was last heard of, in seconds of the monotonic clock."""

    def __init__(
        self,
        store: EventStore,
        world: World,
        timeout: float,
        bound: float = 2.0,
        malformed: Malformed | None = None,
        bus: Client | None = None,
    ) -> None:
        """`bus`: the connection by which nodes are heard; without, it is always there."""
        self._bus = bus
        self._connection = bus.stats["reconnects"] if bus is not None else 0
        self._store = store
        self._world = world
        self._timeout = timeout
        self._started = time.monotonic()
        self._heard: dict[str, float] = {}
        self._leases: dict[str, tuple[int, float]] = {}
        self._free: dict[str, int | None] = {}
        self._unheard_of: dict[str, float] = {}
        self._bound = bound
        self._clocks: dict[str, ClockOffset] = {}
        self._warned: set[str] = set()
        self._malformed = malformed or Malformed()
        self._context = manager("liveness")

    def hear(self, subject: str, body: bytes) -> Rejected | None:
        """Take in a heartbeat. The answer, where the daemon has to know that it is not the one of its node any more."""
        try:
            beat = Heartbeat.model_validate_json(body)
            if beat.node != subjects.node_of(subject):
                raise ValueError("it claims to be of another node")
        except ValueError as error:
            self._malformed.note("heartbeats", subject, error)
            return None
        known = self._world.node(beat.node)
        if beat.lease == 0:
            return None  # it waits for the lease, so it does not work for the node
        if known is None or beat.lease > known.lease:
            return self._never_given(beat)
        self._unheard_of.pop(beat.node, None)
        holder = known.holder
        if beat.lease < known.lease or holder is None or holder.boot != beat.boot:
            by = f"process {holder.pid} on host {holder.host}" if holder else "nobody"
            return Rejected("lease_lost", f"lease {beat.lease} of node {beat.node} is over; {by} has it now")
        self._heard[beat.node] = time.monotonic()
        self._leases[beat.node] = (beat.lease, time.monotonic())
        self._free[beat.node] = beat.image_cache.free_bytes if beat.image_cache is not None else None
        self._clocks.setdefault(beat.node, ClockOffset()).note(beat.at, now())
        self._watch_clock(beat.node)
        return None

    def _never_given(self, beat: Heartbeat) -> Rejected | None:
        """A lease that is not known here was given by another handlers process a moment ago. Or the log is another one
        (lost, or restored from a backup): then the daemon has to register again, or nobody would ever hear it.
        """
        since = self._unheard_of.setdefault(beat.node, time.monotonic())
        if len(self._unheard_of) > MOST_UNHEARD_OF:
            del self._unheard_of[next(iter(self._unheard_of))]
        if time.monotonic() - since < UNHEARD_OF:
            return None
        return Rejected("lease_lost", f"lease {beat.lease} of node {beat.node} was never given: register again")

    def _watch_clock(self, node_id: str) -> None:
        """Say once that a node's clock is too far from this one, and once that it is right again."""
        offset = self._clocks[node_id].seconds()
        wrong = warning(offset, self._bound)
        if wrong and node_id not in self._warned:
            self._warned.add(node_id)
            log.warning("clock of a node is off", node=node_id, offset_seconds=offset, detail=wrong)
        elif not wrong and node_id in self._warned:
            self._warned.discard(node_id)
            log.info("clock of a node is right again", node=node_id, offset_seconds=offset)

    def disk_is_full(self, node_id: str) -> bool:
        """Whether a node said so lately."""
        free = self._free.get(node_id)
        return free is not None and free < ROOM and self._heard_lately(node_id)

    def silence_of_holder(self, node_id: str) -> Silence | None:
        """How long the holder of a node's lease has been silent, as far as this process can know."""
        known = self._world.node(node_id)
        if known is None or known.holder is None:
            return None
        lease, heard = self._leases.get(node_id, (0, 0.0))
        if lease < known.lease:  # a holder that this process did not know yet
            lease, heard = known.lease, time.monotonic()
            self._leases[node_id] = (lease, heard)
        return Silence(lease=lease, seconds=max(0.0, time.monotonic() - max(heard, self._listens_since())))

    def silence(self, node_id: str) -> float:
        return time.monotonic() - max(self._heard.get(node_id, 0.0), self._listens_since())

    def _listens_since(self) -> float:
        """From when on nodes could be heard. Whoever was cut off and does not look meanwhile notices it later."""
        if self._bus is not None:
            connection = self._bus.stats["reconnects"]
            if connection != self._connection or not self._bus.is_connected:
                self._connection, self._started = connection, time.monotonic()
        return self._started

    def driver(self, *, every: float = 1.0) -> Driver:
        return Driver("liveness", self._look, period=every)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        for found in self._world.nodes():
            if self._lost(found) or self._back(found):
                driver.each(f"node {found.id}", partial(self._judge, found.id))
        lost = {n.id for n in self._world.nodes() if n.lost}
        if lost:
            for guest in list(self._world.vms()):
                if guest.node in lost and guest.phase in VISIBLE:
                    driver.each(f"vm {guest.id}", partial(self._lose_vm, guest.id))

    def _lost(self, found: Node) -> bool:
        return not found.lost and self.silence(found.id) > self._timeout

    def _back(self, found: Node) -> bool:
        return found.lost and found.retired_at is None and self._heard_lately(found.id)

    def _heard_lately(self, node_id: str) -> bool:
        """Whether it was heard itself: that nobody can be heard is no sign of life."""
        heard = self._heard.get(node_id)
        return heard is not None and time.monotonic() - heard <= self._timeout

    async def _judge(self, node_id: str) -> None:
        """Note that a node is lost, or is back. Nobody can be heard while the bus is away: then silence begins anew."""
        found = self._world.node(node_id)
        if found is None:
            return
        ref = Ref(subjects.SYSTEM, "node", found.id)
        try:
            if self._lost(found):
                silent = round(self.silence(found.id), 1)
                command = LoseNode(node=found.id, at=now(), silent_seconds=silent)
                await apply(self._store, ref, node.decide, node.evolve, command, self._context, world=self._world)
                log.warning("node lost", node=found.id, silent_seconds=silent)
            elif self._back(found):
                back = RecoverNode(node=found.id, at=now())
                await apply(self._store, ref, node.decide, node.evolve, back, self._context, world=self._world)
                log.info("node is back", node=found.id)
        except Unavailable:
            self._started = time.monotonic()
            raise

    async def _lose_vm(self, vm_id: str) -> None:
        loaded = self._world.vm(vm_id)
        if loaded is not None and loaded.state is not None:
            command = LoseVm(vm=vm_id, node=loaded.state.node or "", at=now())
            with suppress(Rejected):  # its node is back in the meantime
                await apply(
                    self._store,
                    loaded.tip.ref,
                    vm.decide,
                    vm.evolve,
                    command,
                    self._context,
                    world=self._world,
                    beside=self._still_lost,
                )

    async def _still_lost(self, before: Vm | None, events: Sequence[Event]) -> Sequence[Tip]:
        return [self._world.lost_node(before.node)] if before is not None and before.node is not None else []
