"""Liveness: a node without heartbeats for some time is marked as lost, and so are its VMs, until it sends one again.

The silence is measured by this process's own clock, from the last heartbeat, or from the time when this process could
receive heartbeats again, if that is later. So handlers that have just started, or were cut off from the bus, do not
mark nodes as lost.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from nats.aio.client import Client

from domain import node, vm
from domain.base import Event, Rejected
from domain.contract import Heartbeat, HeartbeatAnswer, KnownVms
from domain.node import LoseNode, Node, RecoverNode, Silence
from domain.vm import LoseVm, Vm
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore, Tip, Unavailable
from handlers.apply import apply, manager, now
from handlers.managers.driver import Driver
from handlers.managers.looks import Looks
from handlers.proofs import Proofs, Unproven
from handlers.world.watch import Changes
from handlers.world.world import World
from runtime import logs, subjects
from runtime.bus.malformed import Malformed
from runtime.clock_offset import ClockOffset, warning
from runtime.node_keys import HEARTBEAT, NodeKeys

log = logs.get(__name__)

#: A node's disk counts as full if fewer bytes are free.
ROOM = 32 * 1024**2
#: Seconds after which a lease that this process does not know counts as never granted; maximum number of such nodes.
UNKNOWN_LEASE, MOST_UNKNOWN = 5.0, 1000


class Liveness:
    """The times of the last heartbeats of all nodes, in seconds of the monotonic clock."""

    def __init__(
        self,
        store: EventStore,
        world: World,
        timeout: float,
        bound: float = 2.0,
        malformed: Malformed | None = None,
        bus: Client | None = None,
        keys: NodeKeys | None = None,
        asking: Callable[[], tuple[bytes, ...]] = lambda: (),
        known: Callable[[str], KnownVms | None] = lambda _: None,
    ) -> None:
        """`timeout`: seconds without a heartbeat after which a node is lost. `bound`: seconds that a node's clock may
        differ. `bus`: the connection for heartbeats; None: it is never lost. `keys`, `asking`: see `Proofs`.
        `known`: what the log knows of the VMs of a node.
        """
        self._known = known
        self.proofs = Proofs(world, keys, asking)
        self._sequences: dict[str, tuple[str, int]] = {}
        self._bus = bus
        self._connection = bus.stats["reconnects"] if bus is not None else 0
        self._store = store
        self._world = world
        self._watch = world.watch(("node",))
        self._looks = Looks()
        self._lost: set[str] = set()
        """The nodes that were lost when they were looked at."""
        self._timeout = timeout
        self._started = time.monotonic()
        self._heard: dict[str, float] = {}
        self._leases: dict[str, tuple[int, float]] = {}
        self._free: dict[str, int | None] = {}
        self._unknown_leases: dict[str, float] = {}
        self._bound = bound
        self._clocks: dict[str, ClockOffset] = {}
        self._warned: set[str] = set()
        self._malformed = malformed or Malformed()
        self._context = manager("liveness")

    def hear(self, subject: str, body: bytes, mac: str | None = None) -> Rejected | HeartbeatAnswer | None:
        """Process a heartbeat. Returns a refusal if the daemon does not have the node's lease any more, or the
        challenge for the next heartbeats of a node that signs. A signed one without a valid challenge does not count.
        """
        try:
            beat = Heartbeat.model_validate_json(body)
            if beat.node != subjects.node_of(subject):
                raise ValueError("the heartbeat names another node than its subject")
            signed = self.proofs.signed(beat.node, HEARTBEAT, subject, body, mac)
        except ValueError as error:
            self._malformed.note("heartbeats", subject, error)
            return None
        if beat.lease == 0:
            return None  # a daemon that waits for the lease does not work for the node
        challenge, valid = None, True
        if signed:
            challenge, valid = self.proofs.new_challenge(beat.node, HEARTBEAT, beat.challenge)
        lost = self._take(beat, signed=signed) if valid else None
        known = self._answer(beat) if valid else None
        if lost is not None or (challenge is None and known is None):
            return lost
        if challenge is None:
            return HeartbeatAnswer(challenge="", known=known)
        return HeartbeatAnswer(challenge=challenge, known=known, **self.proofs.asks(beat.node, signed=True))

    def _answer(self, beat: Heartbeat) -> KnownVms | None:
        """What the log knows of the VMs of a node, if its daemon asks for it and has the lease."""
        node_ = self._world.node(beat.node) if beat.asks_known else None
        return self._known(beat.node) if node_ is not None and node_.lease == beat.lease else None

    def _take(self, beat: Heartbeat, *, signed: bool) -> Rejected | None:
        known = self._world.node(beat.node)
        if known is None or beat.lease > known.lease:
            return self._unknown_lease(beat)
        self._unknown_leases.pop(beat.node, None)
        holder = known.holder
        if beat.lease < known.lease or holder is None or holder.boot != beat.boot:
            by = f"process {holder.pid} on host {holder.host}" if holder else "no daemon"
            return Rejected("lease_lost", f"lease {beat.lease} of node {beat.node} has ended; {by} has the lease now")
        if signed and not self._is_new(beat):
            return None
        self._heard[beat.node] = time.monotonic()
        self._leases[beat.node] = (beat.lease, time.monotonic())
        self._free[beat.node] = beat.image_cache.free_bytes if beat.image_cache is not None else None
        self._clocks.setdefault(beat.node, ClockOffset()).note(beat.at, now())
        self._watch_clock(beat.node)
        if known.lost:
            self._looks.add(beat.node)
        return None

    def _is_new(self, beat: Heartbeat) -> bool:
        """Whether this is no repeat of a heartbeat. A challenge excludes only those from before."""
        boot, sequence = self._sequences.get(beat.node, ("", -1))
        if boot == beat.boot and beat.sequence <= sequence:
            error = Unproven("it repeats an earlier heartbeat")
            self._malformed.note("heartbeats", subjects.heartbeat(beat.node), error)
            return False
        self._sequences[beat.node] = (beat.boot, beat.sequence)
        return True

    def _unknown_lease(self, beat: Heartbeat) -> Rejected | None:
        """A lease that this process does not know. Another handlers process may just have granted it. Otherwise the log
        was replaced (lost, or restored from a backup): then the daemon has to register again.
        """
        since = self._unknown_leases.setdefault(beat.node, time.monotonic())
        if len(self._unknown_leases) > MOST_UNKNOWN:
            del self._unknown_leases[next(iter(self._unknown_leases))]
        if time.monotonic() - since < UNKNOWN_LEASE:
            return None
        return Rejected("lease_lost", f"lease {beat.lease} of node {beat.node} was never granted; register again")

    def _watch_clock(self, node_id: str) -> None:
        """Log once that a node's clock differs too much, and once that it is right again."""
        offset = self._clocks[node_id].seconds()
        wrong = warning(offset, self._bound)
        if wrong and node_id not in self._warned:
            self._warned.add(node_id)
            log.warning("clock of a node is off", node=node_id, offset_seconds=offset, detail=wrong)
        elif not wrong and node_id in self._warned:
            self._warned.discard(node_id)
            log.info("clock of a node is right again", node=node_id, offset_seconds=offset)

    def disk_is_full(self, node_id: str) -> bool:
        """Whether a recent heartbeat of the node says so."""
        free = self._free.get(node_id)
        return free is not None and free < ROOM and self._is_alive(node_id)

    def silence_of_holder(self, node_id: str) -> Silence | None:
        """How long the holder of a node's lease has sent no heartbeat, as far as this process knows."""
        known = self._world.node(node_id)
        if known is None or known.holder is None:
            return None
        lease, heard = self._leases.get(node_id, (0, 0.0))
        if lease < known.lease:  # a new holder: its silence begins now
            lease, heard = known.lease, time.monotonic()
            self._leases[node_id] = (lease, heard)
        return Silence(lease=lease, seconds=max(0.0, time.monotonic() - max(heard, self._listens_since())))

    def silence(self, node_id: str) -> float:
        """Seconds since the last heartbeat of a node, or since its daemon got the lease, if that was just now."""
        silent = time.monotonic() - max(self._heard.get(node_id, 0.0), self._listens_since())
        known = self._world.node(node_id)
        if known is None or known.holder is None:
            return silent
        age = (now() - known.holder.since).total_seconds()
        return min(silent, age) if 0 <= age <= self._timeout else silent

    def _listens_since(self) -> float:
        """The time since when this process can receive heartbeats. A lost connection is noticed at the next call."""
        if self._bus is not None:
            connection = self._bus.stats["reconnects"]
            if connection != self._connection or not self._bus.is_connected:
                self._connection, self._started = connection, time.monotonic()
        return self._started

    def driver(self, *, every: float = 1.0) -> Driver:
        return Driver("liveness", self._look, period=every)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        """Look at the nodes that have changed, may have become silent, or may be back; and at the VMs of lost ones."""
        self._listens_since()  # a connection that was lost since the last look
        changed = self._watch.take()
        nodes = self._world.ids("node") if changed.everything else changed.of("node")
        for node_id in {*self._looks.due(time.monotonic()), *nodes}:
            if self._judge(node_id):
                driver.submit(f"node {node_id}", partial(self._update, node_id))
        for node_id in self._world.vm_index.visible.keys() & self._lost if self._lost else ():
            for vm_id in self._world.visible_vms(node_id):
                driver.submit(f"vm {vm_id}", partial(self._lose_vm, vm_id))

    def _judge(self, node_id: str) -> bool:
        """Whether a node has to be marked as lost or recovered. Says when to look at it again."""
        found = self._world.node(node_id)
        if found is None or not found.lost:
            self._lost.discard(node_id)
        else:
            self._lost.add(node_id)
        if found is None:
            return False
        if self._is_lost(found) or self._is_back(found):
            self._looks.add(node_id)  # until it is marked
            return True
        if not found.lost:  # a lost one is looked at after its next heartbeat
            self._looks.add(node_id, max(self._heard.get(node_id, 0.0), self._listens_since()) + self._timeout)
        return False

    def _is_lost(self, found: Node) -> bool:
        """Whether a node has to be marked as lost."""
        return not found.lost and self.silence(found.id) > self._timeout

    def _is_back(self, found: Node) -> bool:
        """Whether a lost node has to be marked as recovered."""
        return found.lost and found.retired_at is None and self._is_alive(found.id)

    def _is_alive(self, node_id: str) -> bool:
        """Whether a heartbeat of the node itself came within the timeout."""
        heard = self._heard.get(node_id)
        return heard is not None and time.monotonic() - heard <= self._timeout

    async def _update(self, node_id: str) -> None:
        """Append that a node is lost or back. While the bus is unavailable, silence does not count."""
        found = self._world.node(node_id)
        if found is None:
            return
        ref = Ref(subjects.SYSTEM, "node", found.id)
        try:
            if self._is_lost(found):
                silent = round(self.silence(found.id), 1)
                command = LoseNode(node=found.id, at=now(), silent_seconds=silent)
                await apply(self._store, ref, node.decide, node.evolve, command, self._context, world=self._world)
                log.warning("node lost", node=found.id, silent_seconds=silent)
            elif self._is_back(found):
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
            with suppress(Rejected):  # its node has come back in the meantime
                await apply(
                    self._store,
                    loaded.tip.ref,
                    vm.decide,
                    vm.evolve,
                    command,
                    self._context,
                    world=self._world,
                    related=self._still_lost,
                )

    async def _still_lost(self, before: Vm | None, events: Sequence[Event]) -> Sequence[Tip]:
        return [self._world.lost_node(before.node)] if before is not None and before.node is not None else []
