"""Reports: what a node says of a VM becomes an event, when it is news.

Reports are stored messages and are acknowledged only once their events are stored. One that fails for a passing reason
comes again; one that fails as often as the settings allow is parked, visibly, and the rest go on.
"""

from collections.abc import Awaitable, Callable

from faststream.exceptions import NackMessage
from faststream.nats import NatsMessage
from nats.aio.client import Client
from pydantic import ValidationError

from domain import vm
from domain.contract import NodeReport
from domain.vm import RecordReport
from eventstore.envelope import Context
from eventstore.jetstream import own
from eventstore.parking import REPORTS, Parking
from eventstore.store import Conflict, EventStore, Unavailable
from handlers.apply import apply, caught_up, now
from handlers.world import World
from runtime import logs, subjects

log = logs.get(__name__)

CONSUMER = "handlers-reports"
RETRY = 1.0


class Reports:
    """Judges the reports of all nodes."""

    def __init__(self, store: EventStore, world: World) -> None:
        self._store = store
        self._world = world

    async def record(self, report: NodeReport) -> None:
        """Append what a report means. One about a VM that is gone, or from another node, means nothing."""
        known = self._world.vm(report.vm) or self._world.forgotten.get(report.vm)
        if known is None:
            if report.vm in self._world.deleted_vms:
                return
            await caught_up(self._store, self._world)
            known = self._world.vm(report.vm)
            if known is None:
                log.warning("report about an unknown vm", vm=report.vm, node=report.node)
                return
        command = RecordReport(vm=report.vm, at=now(), report=report)
        context = Context(actor=f"node:{report.node}", causation=f"report.{report.vm}:{report.sequence}")
        applied = await apply(self._store, known.tip.ref, vm.decide, vm.evolve, command, context, world=self._world)
        for recorded in applied.events:
            log.info("vm reported", vm=report.vm, node=report.node, type=recorded.type, position=recorded.position)


def receiver(reports: Reports, nc: Client, max_deliver: int) -> Callable[[bytes, NatsMessage], Awaitable[None]]:
    """The subscriber around `Reports.record`: which failure is tried again, and which is parked."""

    parking = Parking(nc)

    async def on_report(body: bytes, msg: NatsMessage) -> None:
        raw = msg.raw_message
        try:
            report = NodeReport.model_validate_json(body)
            if raw.subject != subjects.report(report.node, report.vm):
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
    """Put a report aside for people to see. Raises NackMessage when that is not possible now."""
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
