"""The health of the platform, part by part."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.access import STATUS_READ
from domain.contract import Caller, CommandRequest, HandlersHealth
from eventstore.log.store import Unavailable
from gateway.monitoring import unreadable
from gateway.monitoring.health_memory import PARTS, Manager, Part
from gateway.monitoring.roles import Report
from gateway.state import Gateway, caller
from projections import upgrade
from projections.database import ReadModelsUnavailable, progress
from runtime import subjects
from runtime.bus import replies, requests
from runtime.bus.requests import NobodyThere, Patience, Refused, Unanswered

#: Seconds for the answer of each part.
PATIENCE = 1.5
#: Seconds until handlers are asked again: a process that was killed does not answer, and another one does.
REPEATED = 0.5
#: Seconds for which read models that are behind may stand still. (With a full disk they can still be read.)
STILL = 10.0


class HealthView(TypedDict):
    """The health of the platform. Further members, for operators and auditors, are described in docs/http-api.md."""

    status: Literal["ok", "degraded", "unavailable"]


async def health(gateway: Gateway, request: Request) -> Response:
    """200 if commands are decided, the log stores and the read models are updated; else 503, which names the part.

    Only operators and auditors see the parts. For all others, such as load balancers, the status is `ok` or
    `unavailable`.

    `degraded`: it works, but messages are parked and open, a node cannot read a document, a manager fails at something,
    or a node's clock is wrong. `parked_more`: messages for which there was no room among the parked ones. `malformed`:
    malformed messages that are not stored, by source. `daemons_waiting`: node daemons that do nothing, because another
    one of their name works. `clocks_off`: nodes whose clocks differ too much from this one.
    """
    body = await gateway.health.body(lambda: check(gateway))
    well = body["status"] != "unavailable"
    if not caller(request).identity.access.may(STATUS_READ):
        body = {"status": "ok" if well else "unavailable"}
    content = to_json(body, inf_nan_mode="null")  # handlers may send any number
    return Response(content, 200 if well else 503, None if well else {"Retry-After": "1"}, "application/json")


async def check(gateway: Gateway) -> dict[str, Any]:
    of_handlers, nats, (rows, projections) = await asyncio.gather(
        handlers(gateway), end_of_log(gateway), end_of_rows(gateway)
    )
    commands, log, reported = of_handlers
    managers = gateway.health.dated(working(reported, gateway.roles.all()))
    readable = "position" in nats and "position" in rows
    lag = max(nats["position"] - rows["position"], 0) if readable else None
    if readable and rows["position"] > nats["position"]:
        nats = await end_of_log(gateway)  # it was read before the rows
        if rows["position"] > nats.get("position", rows["position"]):
            detail = (
                "the read models are ahead of the log, so it is another log: restore the log, or run `nebula rebuild`"
            )
            projections = {"status": "unavailable", "detail": detail}
    if lag and "building" not in rows:
        still = gateway.health.rows.seconds(rows["position"], True, time.monotonic())
        if still > STILL and projections["status"] == "ok":
            detail = f"the read models stand still, {lag} events behind; see the log of the projections"
            projections = {"status": "unavailable", "detail": detail}
    elif readable:
        gateway.health.rows.seconds(rows["position"], False, time.monotonic())
    malformed = gateway.unreadable.all(gateway.heartbeats)
    body: dict[str, Any] = {
        "commands": commands,
        "log": log,
        "nats": nats,
        "postgres": rows,
        "projections": projections,
        "lag": lag,
        "lag_seconds": await lag_seconds(gateway, rows["position"]) if lag else 0.0,
        "managers": managers,
        "parked": gateway.parked.open,
        "parked_more": gateway.parked.more,
        "malformed": {source: found.model_dump(mode="json") for source, found in malformed.items()},
        "daemons_waiting": gateway.heartbeats.all_waiting(),
        "clocks_off": gateway.heartbeats.clocks_off(),
    }
    well = all(body[name]["status"] == "ok" for name in PARTS)
    failing = any(each.get("failing_since") for each in managers)
    parked = gateway.parked.open or gateway.parked.more
    trouble = parked or failing or body["clocks_off"] or unreadable.WANTED in malformed
    return {"status": ("degraded" if trouble else "ok") if well else "unavailable", **body}


async def handlers(gateway: Gateway) -> tuple[Part, Part, list[Manager]]:
    """Whether commands are decided, whether the log stores, and the managers' state. Sends a request to handlers."""
    subject = subjects.command(subjects.SYSTEM, "health", "check")
    question = CommandRequest(args={}, context=Caller(actor="system:gateway")).body()
    unknown: Part = {"status": "unknown"}
    try:
        answer = await requests.request(
            gateway.nc, subject, question, Patience(REPEATED, in_all=PATIENCE), HandlersHealth.model_validate
        )
        gateway.unreadable.note(answer.process, answer.malformed)
        stored: Part = {"status": answer.log.status}
        if answer.log.detail is not None:
            stored["detail"] = answer.log.detail
        return {"status": "ok"}, stored, list(answer.managers)
    except Refused as refused:
        return {"status": "unavailable", "detail": refused.refusal.code}, unknown, []
    except NobodyThere:
        return {"status": "unavailable", "detail": "no handlers answer"}, unknown, []
    except Unanswered:
        return {"status": "unavailable", "detail": "handlers do not answer in time"}, unknown, []
    except (replies.InvalidReply, ValueError):
        return {"status": "unavailable", "detail": "the answer of handlers is invalid"}, unknown, []


def working(reported: list[Manager], reports: Iterable[Report]) -> list[Manager]:
    """The managers: as the answering handlers process reports, or as the process reports that runs them."""
    elsewhere = {found.name: found for each in reports if each.alive for found in each.status.managers if found.works}

    def newest(each: Manager) -> Manager:
        name = each.get("name")
        found = elsewhere.get(name) if isinstance(name, str) and each.get("works") is False else None
        return found.model_dump(mode="json", include=set(each)) if found is not None else each

    return [newest(each) for each in reported]


async def end_of_log(gateway: Gateway) -> Part:
    try:
        position = await asyncio.wait_for(gateway.store.last_position(), PATIENCE)
    except (Unavailable, TimeoutError):
        return {"status": "unavailable"}
    return {"status": "ok", "position": position}


async def end_of_rows(gateway: Gateway) -> tuple[Part, Part]:
    """The position of the read models, and whether a process updates them."""
    try:
        position, alive = await asyncio.wait_for(progress(gateway.pool), PATIENCE)
    except (ReadModelsUnavailable, TimeoutError):
        return {"status": "unavailable"}, {"status": "unknown"}
    building = None
    with contextlib.suppress(ReadModelsUnavailable, TimeoutError):  # (the rows have just answered)
        building = await asyncio.wait_for(upgrade.building(gateway.pool), PATIENCE)
    rows: Part = {"status": "ok", "position": position}
    if building is not None:
        rows["building"] = {"position": building}
    if alive:
        return rows, {"status": "ok"}
    return rows, {"status": "unavailable", "detail": "no process updates the read models"}


async def lag_seconds(gateway: Gateway, position: int) -> float | None:
    """The age of the first event that the read models do not reflect."""
    try:
        async with asyncio.timeout(PATIENCE):
            found = await gateway.store.read(position, limit=1)
    except (Unavailable, TimeoutError):
        return None
    return round(max(0.0, (datetime.now(UTC) - found[0].stored_at).total_seconds()), 3) if found else 0.0


async def metrics(gateway: Gateway, request: Request) -> Response:
    """Metrics for Prometheus."""
    gateway.metrics.position.set(gateway.position.value)
    await handlers(gateway)
    gateway.metrics.malformed_are(gateway.unreadable.all(gateway.heartbeats))
    gateway.metrics.parked_are(gateway.parked.counts(), gateway.parked.more_by_source())
    gateway.metrics.bus_refusals_are(gateway.refusals.of_bus)
    gateway.metrics.daemons_are(gateway.heartbeats.refused, gateway.heartbeats.all_waiting())
    gateway.metrics.clocks_are(gateway.heartbeats.clock_offsets())
    with contextlib.suppress(ReadModelsUnavailable, TimeoutError):
        building = await asyncio.wait_for(upgrade.building(gateway.pool), PATIENCE)
        gateway.metrics.building.set(-1 if building is None else building)
    return Response(gateway.metrics.text(), media_type="text/plain; version=0.0.4")
