"""Whether the platform can do its work, dependency by dependency."""

import asyncio
import contextlib
from typing import Any, Literal

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from eventstore.store import Unavailable
from gateway.state import Gateway
from projections import upgrade
from projections.database import Away, fetch

#: Seconds that each dependency has for its answer.
PATIENCE = 1.5


class HealthView(TypedDict):
    """How the platform is. What else is said depends on what there is to say."""

    status: Literal["ok", "degraded", "unavailable"]


async def health(gateway: Gateway, request: Request) -> Response:
    """200 when the log and the read models answer, 503 otherwise; and how far the read models are behind.

    `degraded`: it works, and messages are parked that nobody has looked at.
    """
    log, rows = await asyncio.gather(end_of_log(gateway), end_of_rows(gateway))
    well = "position" in log and "position" in rows
    lag = max(log["position"] - rows["position"], 0) if well else None
    status = ("degraded" if gateway.parked.open else "ok") if well else "unavailable"
    body = {"status": status, "nats": log, "postgres": rows, "lag": lag, "parked": gateway.parked.open}
    headers = None if well else {"Retry-After": "1"}
    return Response(to_json(body), 200 if well else 503, headers, "application/json")


async def end_of_log(gateway: Gateway) -> dict[str, Any]:
    try:
        position = await asyncio.wait_for(gateway.store.last_position(), PATIENCE)
    except (Unavailable, TimeoutError):
        return {"status": "unavailable"}
    return {"status": "ok", "position": position}


async def end_of_rows(gateway: Gateway) -> dict[str, Any]:
    try:
        found = await asyncio.wait_for(fetch(gateway.pool, "SELECT 1 AS one", {}), PATIENCE)
    except (Away, TimeoutError):
        return {"status": "unavailable"}
    building = None
    with contextlib.suppress(Away, TimeoutError):  # (the rows have just answered)
        building = await asyncio.wait_for(upgrade.building(gateway.pool), PATIENCE)
    made = {} if building is None else {"building": {"position": building}}
    return {"status": "ok", "position": found.position, **made}


async def metrics(gateway: Gateway, request: Request) -> Response:
    """Numbers for Prometheus."""
    gateway.metrics.position.set(gateway.position.value)
    gateway.metrics.parked_are(gateway.parked.counts())
    with contextlib.suppress(Away, TimeoutError):
        building = await asyncio.wait_for(upgrade.building(gateway.pool), PATIENCE)
        gateway.metrics.building.set(-1 if building is None else building)
    return Response(gateway.metrics.text(), media_type="text/plain; version=0.0.4")
