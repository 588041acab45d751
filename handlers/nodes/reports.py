"""Reports: what a node says of a VM becomes an event, when it is news.

They come over a durable queue (`queues.py`): a report is acknowledged only once its events are stored.
"""

from typing import Annotated

from pydantic import Field

from domain import vm
from domain.contract import NodeReport, RefusedDocument
from domain.node import Node
from domain.vm import RecordReport
from eventstore.log.envelope import Context
from eventstore.log.store import EventStore
from eventstore.parking.parking import REPORTS
from handlers.apply import apply, caught_up, now
from handlers.queues.queues import PoisonMessage, Queues
from handlers.world.world import World
from runtime import logs, subjects

log = logs.get(__name__)

#: Seconds that a sequence may be ahead of the time since its lease was given: clocks are set now and then. A VM is deaf
#: for no longer after a report that was a lie.
SLACK = 600.0
#: What reports may need of handlers, by name, beyond what they always did.
FEATURES: frozenset[str] = frozenset()
#: Those of earlier versions name no kind: they are of VMs.
AnyReport = Annotated[NodeReport | RefusedDocument, Field(union_mode="left_to_right")]


class Reports:
    """Judges the reports of all nodes."""

    def __init__(self, store: EventStore, world: World) -> None:
        self._store = store
        self._world = world

    async def record(self, report: NodeReport) -> None:
        """Append what a report means: nothing, about a VM that is gone, from another node, or under an earlier lease.

        Raises PoisonMessage for one that cannot be true.
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
        """The node, if the daemon that reports holds its lease. Raises PoisonMessage for a lease never given."""
        speaker = self._world.node(report.node)
        if speaker is None or report.lease > speaker.lease:
            await self._world.reached(await self._store.last_position())
            speaker = self._world.node(report.node)
        if speaker is None or report.lease > speaker.lease or report.lease == 0:
            raise PoisonMessage(f"node {report.node} was not given lease {report.lease}")
        if report.lease < speaker.lease:
            log.info("report of an earlier lease ignored", node=report.node, vm=report.vm, lease=report.lease)
            return None
        if speaker.retired_at is not None:
            log.info("report of a retired node ignored", node=report.node, vm=report.vm)
            return None
        if speaker.holder is not None:
            age = max(0.0, (now() - speaker.holder.since).total_seconds())
            if report.sequence > (age + SLACK) * 1e9:
                raise PoisonMessage(
                    f"sequence {report.sequence} is more than the nanoseconds since lease {report.lease}"
                )
        return speaker


def receive(queues: Queues, reports: Reports) -> None:
    """Have the queue of reports judged."""

    @queues.of(REPORTS, subjects.REPORTS_OF_ALL)
    async def on_report(report: AnyReport, subject: str) -> None:
        await reports.record(of_vm(subject, report))


def of_vm(subject: str, report: AnyReport) -> NodeReport:
    """The report, where it is one of a VM that stands on its subject. Raises PoisonMessage for all else.

    These handlers write no documents of other kinds, so that a node refuses one is news to operators, who see it among
    the parked messages.
    """
    if unknown := sorted(set(report.features) - FEATURES):
        raise PoisonMessage(f"it needs {', '.join(unknown)}, which these handlers do not know: upgrade them")
    id_ = report.vm if isinstance(report, NodeReport) else report.id
    if subjects.parse_report(subject) != (report.node, report.kind, id_):
        raise PoisonMessage(f"a report on {subject} claims to be of {report.node}")
    if isinstance(report, NodeReport):
        return report
    raise PoisonMessage(f"node {report.node} refuses {report.kind} {id_}: {report.error.code}: {report.error.detail}")
