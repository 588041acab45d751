"""Counts of events in ranges of positions: where something happened, for an overview of the whole log.

The ranges begin at multiples of their width, so they are the same ones whenever somebody asks. What was counted of a
range that is wholly in the past never changes, and is kept.
"""

from collections.abc import Iterator
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.access import EVENT_READ
from domain.kinds import KINDS
from gateway.http import parameters
from gateway.reads.reads import answer
from gateway.state import Gateway, begins, mine, rows_reflect
from gateway.writes import ANY
from projections import marks as rows, times
from projections.database import ReadModelsUnavailable
from projections.marks import Counted, Mark, Scope

#: Ends of names of event types that say that something failed.
_FAILS = ("Failed", "TimedOut", "Rejected", "Lost", "Unschedulable")
#: The types of events that count as failures.
FAILURES = tuple(
    sorted(event.TOPIC for kind in KINDS.values() for event in kind.all_events if event.TOPIC.endswith(_FAILS))
)

RangeView = TypedDict("RangeView", {"from": int, "to": int, "events": int, "failures": int, "first": int, "time": str})
"""The events at the positions `from` to `to`. `first`, `time`: position and time of the first one."""


class MarksView(TypedDict):
    """Ranges of positions that have events, in their order. All but the first and the last have `width` positions."""

    items: list[RangeView]
    width: int
    position: int


def width_of(first: int, last: int, most: int) -> int:
    """The least width (1, 2 or 5 times a power of ten) with which there are at most `most` ranges."""
    for width in widths():
        if (last - 1) // width - (first - 1) // width < most:
            return width
    raise AssertionError("there is always a greater width")


def widths() -> Iterator[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


async def marks(gateway: Gateway, request: Request) -> Response:
    """Counts of the events that the caller may see, in at most `buckets` ranges."""
    project, vm = parameters.word(request, "project"), parameters.word(request, "vm")
    seen = mine(request, EVENT_READ)
    most = parameters.buckets(request)
    named = [one for one in (project, vm) if one is not None]
    await gateway.fresh(request, *(named if seen is None else seen), kind=ANY)
    end = await rows.reached(gateway.pool)
    first, last = await bound(gateway, request, "from", end), await bound(gateway, request, "to", end)
    first, last = max(1, first if first is not None else 1), min(end, last if last is not None else end)
    again = begins(gateway, request, EVENT_READ)
    scope = Scope(project, vm, None if seen is None else tuple(seen), tuple(sorted(again.items())))
    width = width_of(first, max(first, last), most)
    found: list[Mark] = []
    if first <= last:
        found, end = await counted(gateway, scope, first, last, width, end)
    rows_reflect(request, end)
    view: MarksView = {"items": [shown(each, first, last, width) for each in found], "width": width, "position": end}
    return answer(view)


async def bound(gateway: Gateway, request: Request, name: str, end: int) -> int | None:
    """One end of the range as a position."""
    moment = parameters.moment(request, name)
    if not isinstance(moment, datetime):
        return moment
    at = await rows.position_at(gateway.pool, moment, end)
    return at + 1 if name == "from" else at


async def counted(
    gateway: Gateway, scope: Scope, first: int, last: int, width: int, end: int
) -> tuple[list[Mark], int]:
    """The ranges with events, of which those are counted that are not known yet; and the log position."""
    known = gateway.marks.of(scope, width) if scope.vm is None else {}  # (a VM has few events)
    low, high = (first - 1) // width, (last - 1) // width
    whole = range(low + ((first - 1) % width > 0), high + (last % width == 0))  # those that are not cut off
    unknown = [number for number in range(low, high + 1) if number not in whole or number not in known]
    found = {number: mark for number in whole if (mark := known.get(number)) is not None}
    for lowest, highest in runs(unknown):
        start, stop = max(first, lowest * width + 1), min(last, (highest + 1) * width)
        past = await counts_of_the_past(gateway, scope, start, stop, width)
        fresh, end = await rows.marks(gateway.pool, scope, start, stop, width, FAILURES, past)
        counts = {mark.number: mark for mark in fresh}
        found |= counts
        kept = highest + 1 if (highest + 1) * width <= end else highest
        known |= {number: counts.get(number) for number in range(lowest, kept) if number in whole}
    gateway.marks.trim()
    return [found[number] for number in sorted(found)], end


async def counts_of_the_past(gateway: Gateway, scope: Scope, first: int, last: int, width: int) -> Counted | None:
    """What the past has counted already; None if it cannot be asked."""
    try:
        return await rows.counted(gateway.past.pool, scope, first, last, width)
    except ReadModelsUnavailable:
        return None


def runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Consecutive numbers as pairs of the first and the last."""
    begins = ends = None
    for number in numbers:
        if ends is not None and begins is not None and number > ends + 1:
            yield begins, ends
            begins = None
        begins, ends = number if begins is None else begins, number
    if begins is not None and ends is not None:
        yield begins, ends


def shown(mark: Mark, first: int, last: int, width: int) -> RangeView:
    return {
        "from": max(first, mark.number * width + 1),
        "to": min(last, (mark.number + 1) * width),
        "events": mark.events,
        "failures": mark.failures,
        "first": mark.first,
        "time": times.text(mark.time),
    }
