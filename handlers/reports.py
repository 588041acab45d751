"""Reports: what a node says of a VM becomes an event, when it is news.

They come over a durable queue (`queues.py`): a report is acknowledged only once its events are stored.
"""

from faststream.nats import NatsMessage

from domain import vm
from domain.contract import NodeReport
from domain.node import Node
from domain.vm import RecordReport
from eventstore.log.envelope import Context
from eventstore.log.store import EventStore
from eventstore.parking.parking import REPORTS
from handlers.apply import apply, caught_up, now
from handlers.queues import Malformed, Queues
from handlers.world import World
from runtime import logs, subjects

log = logs.get(__name__)

#: Seconds that a sequence may be ahead of the time since its lease was given: clocks are set now and then. A VM is deaf
#: for no longer after a report that was a lie.
SLACK = 600.0


class Reports:
    """Judges the reports of all nodes."""

    def __init__(self, store: EventStore, world: World) -> None:
        self._store = store
        self._world = world

    async def record(self, report: NodeReport) -> None:
        """Append what a report means: nothing, about a VM that is gone, from another node, or under an earlier lease.

        Raises Malformed for one that cannot be true.
        """
        speaker = await self._speaker(report)
        if speaker is None:
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
        command = RecordReport(vm=report.vm, at=now(), report=report, folder=speaker.identity)
        context = Context(actor=f"node:{report.node}", causation=f"report.{report.vm}:{report.sequence}")
        applied = await apply(self._store, known.tip.ref, vm.decide, vm.evolve, command, context, world=self._world)
        for recorded in applied.events:
            log.info("vm reported", vm=report.vm, node=report.node, type=recorded.type, position=recorded.position)

    async def _speaker(self, report: NodeReport) -> Node | None:
        """The node, if the daemon that reports holds its lease. Raises Malformed for a lease never given."""
        speaker = self._world.node(report.node)
        if speaker is None or report.lease > speaker.lease:
            await self._world.reached(await self._store.last_position())
            speaker = self._world.node(report.node)
        if speaker is None or report.lease > speaker.lease or report.lease == 0:
            raise Malformed(f"node {report.node} was not given lease {report.lease}")
        if report.lease < speaker.lease:
            log.info("report of an earlier lease ignored", node=report.node, vm=report.vm, lease=report.lease)
            return None
        if speaker.retired_at is not None:
            log.info("report of a retired node ignored", node=report.node, vm=report.vm)
            return None
        if speaker.holder is not None:
            age = max(0.0, (now() - speaker.holder.since).total_seconds())
            if report.sequence > (age + SLACK) * 1e9:
                raise Malformed(f"sequence {report.sequence} is more than the nanoseconds since lease {report.lease}")
        return speaker


def receive(queues: Queues, reports: Reports) -> None:
    """Have the queue of reports judged."""

    @queues.of(REPORTS, subjects.REPORTS_OF_ALL)
    async def on_report(report: NodeReport, msg: NatsMessage) -> None:
        subject = msg.raw_message.subject
        if subjects.parse_report(subject) != (report.node, "vm", report.vm):
            raise Malformed(f"a report on {subject} claims to be of {report.node}")
        await reports.record(report)
