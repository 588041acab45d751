"""Reports: what a node says of a VM becomes an event, when it is news.

Reports are stored messages and are acknowledged only once their events are stored. One that fails for a passing reason
comes again; one that fails as often as the settings allow is parked, visibly, and the rest go on.
"""

from collections.abc import Awaitable, Callable

from faststream.exceptions import NackMessage
from faststream.nats import NatsMessage
from pydantic import ValidationError

from domain import vm
from domain.contract import NodeReport
from domain.node import Node
from domain.vm import RecordReport
from eventstore.log.envelope import Context
from eventstore.log.received import own
from eventstore.log.store import Conflict, EventStore, Unavailable
from eventstore.parking.parking import REPORTS, Parking
from handlers.apply import apply, caught_up, now
from handlers.world import World
from runtime import logs, subjects

log = logs.get(__name__)

RETRY = 1.0
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

        Raises ValueError for one that cannot be true.
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
        """The node, if the daemon that reports holds its lease. Raises ValueError for a lease never given."""
        speaker = self._world.node(report.node)
        if speaker is None or report.lease > speaker.lease:
            await self._world.reached(await self._store.last_position())
            speaker = self._world.node(report.node)
        if speaker is None or report.lease > speaker.lease or report.lease == 0:
            raise ValueError(f"node {report.node} was not given lease {report.lease}")
        if report.lease < speaker.lease:
            log.info("report of an earlier lease ignored", node=report.node, vm=report.vm, lease=report.lease)
            return None
        if speaker.retired_at is not None:
            log.info("report of a retired node ignored", node=report.node, vm=report.vm)
            return None
        if speaker.holder is not None:
            age = max(0.0, (now() - speaker.holder.since).total_seconds())
            if report.sequence > (age + SLACK) * 1e9:
                raise ValueError(f"sequence {report.sequence} is more than the nanoseconds since lease {report.lease}")
        return speaker


def receiver(reports: Reports, parking: Parking, max_deliver: int) -> Callable[[bytes, NatsMessage], Awaitable[None]]:
    """The subscriber around `Reports.record`: which failure is tried again, and which is parked."""

    async def on_report(body: bytes, msg: NatsMessage) -> None:
        raw = msg.raw_message
        try:
            report = NodeReport.model_validate_json(body)
            if subjects.parse_report(raw.subject) != (report.node, "vm", report.vm):
                raise ValueError(f"a report on {raw.subject} claims to be of {report.node}")
            await reports.record(report)
        except (Unavailable, Conflict) as error:
            log.warning("report waits for the log", subject=raw.subject, error=str(error))
            raise NackMessage(delay=RETRY) from error
        except (ValidationError, ValueError) as error:
            await park(parking, msg, error)
        except Exception as error:
            log.exception("report failed", subject=raw.subject, tries=raw.metadata.num_delivered)
            if raw.metadata.num_delivered < max_deliver:
                raise NackMessage(delay=RETRY) from error
            await park(parking, msg, error)

    return on_report


async def park(parking: Parking, msg: NatsMessage, error: Exception) -> None:
    """Put a report aside for people to see, or only count it. Raises NackMessage when neither is possible now."""
    raw = msg.raw_message
    position = raw.metadata.sequence.stream
    try:
        await parking.park(
            REPORTS,
            str(position),
            subject=raw.subject,
            position=position,
            error=repr(error),
            headers=own(raw.headers or {}),
            body=raw.data,
        )
    except Unavailable as away:
        raise NackMessage(delay=RETRY) from away
