"""Reports of nodes about VMs become events, if they say something new.

They come over a durable queue (`queues/queues.py`): a report is acknowledged only once its events are stored.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from nats.aio.msg import Msg
from pydantic import Field

from domain import vm
from domain.contract import NodeReport, RefusedDocument, Report
from domain.node import Node
from domain.vm import RecordReport
from eventstore.log.envelope import Context
from eventstore.log.store import EventStore
from eventstore.parking.parking import REPORTS
from handlers.apply import apply, caught_up, now
from handlers.proofs import Proofs, Unproven, mac_of
from handlers.queues.queues import PoisonMessage, Queues
from handlers.world.world import World
from runtime import logs, subjects
from runtime.node_keys import REPORT, NodeKeys

log = logs.get(__name__)

#: Seconds that a sequence may be ahead of the time since its lease was granted, as clocks are adjusted. So a forged
#: sequence makes handlers ignore a VM's reports for no longer than this.
SLACK = 600.0
#: The features of reports that these handlers know.
FEATURES: frozenset[str] = frozenset()
#: Reports of earlier versions have no kind: they are about VMs.
AnyReport = Annotated[NodeReport | RefusedDocument, Field(union_mode="left_to_right")]


class InOrder:
    """One task at a time for each key, in the order in which they came."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(key, (None, 0))
        lock = lock or asyncio.Lock()
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(key)
            if users > 1:
                self._locks[key] = lock, users - 1


class Reports:
    """Makes events of the reports of all nodes. `keys`: see `Proofs`."""

    def __init__(self, store: EventStore, world: World, keys: NodeKeys | None = None) -> None:
        self._store = store
        self._world = world
        self._proofs = Proofs(world, keys)
        self._in_order = InOrder()

    async def check(self, report: Report, msg: Msg) -> None:
        """Raises PoisonMessage if the report's node did not write it for its subject, Unavailable."""
        known = self._world.node(report.node)
        if known is None or report.lease > known.lease:  # whether the node signs may be news
            await caught_up(self._store, self._world)
        try:
            self._proofs.signed(subjects.node_of(msg.subject), REPORT, msg.subject, msg.data, mac_of(msg))
        except Unproven as error:
            raise PoisonMessage(str(error)) from error

    async def record(self, report: NodeReport) -> None:
        """Append the events that follow from a report. There are none if the VM is deleted or on another node, or the
        lease is an earlier one.

        Reports about one VM are recorded one after the other: two that are decided on the same state conflict, and a
        conflict breaks up the group in which many are stored. Raises PoisonMessage for a report that cannot be true.
        """
        async with self._in_order.of(report.vm):
            await self._record(report)

    async def _record(self, report: NodeReport) -> None:
        sender = await self._sender(report)
        if sender is None:
            return
        known = self._world.vm(report.vm) or self._world.forgotten.get(report.vm)
        if known is None:
            if report.vm in self._world.deleted_vms:
                return
            await caught_up(self._store, self._world)
            known = self._world.vm(report.vm)
            if known is None:
                log.warning("report about an unknown vm", vm=report.vm, node=report.node)
                return
        command = RecordReport(vm=report.vm, at=now(), report=report, folder=sender.identity)
        context = Context(actor=f"node:{report.node}", causation=f"report.{report.vm}:{report.sequence}")
        applied = await apply(self._store, known.tip.ref, vm.decide, vm.evolve, command, context, world=self._world)
        for recorded in applied.events:
            self._world.apply(recorded)  # the next report is decided on this state
            log.info("vm reported", vm=report.vm, node=report.node, type=recorded.type, position=recorded.position)
        if applied.events:
            self._world.nudge()

    async def _sender(self, report: NodeReport) -> Node | None:
        """The node, if the report's daemon has its lease. Raises PoisonMessage for a lease that was never granted."""
        node = self._world.node(report.node)
        if node is None or report.lease > node.lease:
            await caught_up(self._store, self._world)
            node = self._world.node(report.node)
        if node is None or report.lease > node.lease or report.lease == 0:
            raise PoisonMessage(f"node {report.node} was never granted lease {report.lease}")
        if report.lease < node.lease:
            log.info("report under an earlier lease ignored", node=report.node, vm=report.vm, lease=report.lease)
            return None
        if node.retired_at is not None:
            log.info("report of a retired node ignored", node=report.node, vm=report.vm)
            return None
        if node.holder is not None:
            age = max(0.0, (now() - node.holder.since).total_seconds())
            if report.sequence > (age + SLACK) * 1e9:
                raise PoisonMessage(
                    f"sequence {report.sequence} is more than the nanoseconds since lease {report.lease}"
                )
        return node


def receive(queues: Queues, reports: Reports) -> None:
    """Process the queue of reports."""

    @queues.of(REPORTS, subjects.REPORTS_OF_ALL, reports.check)
    async def on_report(report: AnyReport, subject: str) -> None:
        await reports.record(of_vm(subject, report))


def of_vm(subject: str, report: AnyReport) -> NodeReport:
    """The report, if it is about the VM that its subject names. Raises PoisonMessage for any other.

    A refusal of a document of another kind is parked, so that operators see it: these handlers write no such documents.
    """
    if unknown := sorted(set(report.features) - FEATURES):
        raise PoisonMessage(f"it needs features that these handlers do not know: {', '.join(unknown)}; upgrade them")
    id_ = report.vm if isinstance(report, NodeReport) else report.id
    if subjects.parse_report(subject) != (report.node, report.kind, id_):
        raise PoisonMessage(f"a report on {subject} claims to be of {report.node}")
    if isinstance(report, NodeReport):
        return report
    raise PoisonMessage(f"node {report.node} refuses {report.kind} {id_}: {report.error.code}: {report.error.detail}")
