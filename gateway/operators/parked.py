"""Parked messages over HTTP: list and show them; handlers retry and drop them (docs/integrity.md)."""

import contextlib
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from domain.base import Reason
from domain.contract import Json
from eventstore.parking.parking import LOG, NotParked, Parked, Parking, Status
from gateway.commands import asking, bodies
from gateway.commands.commands import passed_on
from gateway.http import content, parameters
from gateway.http.parameters import not_found
from gateway.reads.reads import answer, listed
from gateway.state import Gateway
from runtime import subjects
from runtime.bus import requests


class Drop(bodies.Body):
    """Why a parked message is not wanted any more."""

    reason: Reason


class ParkedSummary(BaseModel):
    """A record in a list, without the message."""

    source: str
    key: str
    status: Status
    subject: str
    position: int
    error: str
    time: str
    size: int
    actor: str | None = None
    reason: str | None = None
    closed_at: str | None = None
    count: int = 1


class ParkedView(ParkedSummary):
    """A whole record. `message`: for a message of the log, its form in the feeds."""

    headers: dict[str, str]
    data_base64: str | None = None
    message: dict[str, Any] | None = None


def shown(record: Parked) -> dict[str, Any]:
    return record.model_dump(mode="json")


async def many(gateway: Gateway, request: Request) -> Response:
    """A page of records in the order of their parking; by default the open ones."""
    after, limit = parameters.page_token(request, "parked") or 0, parameters.limit(request)
    status = parameters.choice(request, "status", Status) or Status.OPEN
    source = parameters.word(request, "source")
    places = gateway.parked.places(Status(status), source, after, limit + 1)
    parking = Parking(gateway.nc)
    items = []
    for _, newest in places[:limit]:
        with contextlib.suppress(NotParked):  # a count that has just been replaced
            items.append(summary(await parking.at(newest)))
    following = places[limit - 1][0] if len(places) > limit else None
    return listed(request, "parked", items, following, gateway.position.value)


def summary(record: Parked) -> dict[str, Any]:
    """A record without the message."""
    return record.model_dump(mode="json", exclude={"headers", "data_base64"})


async def one(gateway: Gateway, request: Request) -> Response:
    """A record with its message. A message of the log is read from the log."""
    record = await Parking(gateway.nc).get(*named(request))
    view = shown(record)
    if record.source == LOG and record.position:
        found = await gateway.store.read(record.position - 1, None, 1)
        if found and found[0].position == record.position:
            view["message"] = found[0].cloud_event()
    return answer(view)


async def retry(gateway: Gateway, request: Request) -> Response:
    """Put the message back on its subject, to be processed again."""
    bodies.Body.model_validate_json(await content.read(request) or b"{}")
    return await close(gateway, request, "retry")


async def drop(gateway: Gateway, request: Request) -> Response:
    """Close the record of a message that needs no more work."""
    body = Drop.model_validate_json(await content.read(request) or b"{}")
    return await close(gateway, request, "drop", reason=body.reason)


async def close(gateway: Gateway, request: Request, verb: str, **more: Json) -> Response:
    """Have handlers close the record. Raises Problem."""
    source, key = named(request)
    args: dict[str, Json] = {"source": source, "key": key, **more}
    subject = subjects.command(subjects.SYSTEM, "parked", verb)
    try:
        record = await asking.asked(gateway, request, subject, args, Parked.model_validate)
    except requests.Refused as error:
        raise passed_on(error.refusal) from error
    gateway.parked.close(record)
    return answer(shown(record))


def named(request: Request) -> tuple[str, str]:
    """The source and the key in the path. Raises Problem (404) if one is invalid."""
    source, key = request.path_params["source"], request.path_params["key"]
    try:
        return subjects.token(source), subjects.token(key)
    except ValueError:
        raise not_found("parked", f"{source}/{key}") from None
