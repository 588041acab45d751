"""What changed between two moments: each resource with an event between them, in words, with who and why."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.access import EVENT_READ
from eventstore.log.envelope import Recorded
from gateway.http import parameters
from gateway.reads import moments, past
from gateway.reads.past import Begins
from gateway.reads.reads import listed, page_key
from gateway.state import Gateway
from gateway.words import events as words, fields
from projections import times
from projections.past import changes
from projections.past.changes import Changed, Range, Sample
from projections.past.queries import Then

LIST = "diff"
#: What is said of a resource of which no fields are compared.
SAID = {"created": "it was created", "deleted": "it was deleted", "came_and_went": "it was created, and deleted again"}
What = Literal["created", "deleted", "changed", "came_and_went", "unchanged"]


class ChangeView(TypedDict):
    """A field that differs. `words`: the change in a sentence."""

    field: str
    before: Any
    after: Any
    words: str


class EventOfDiff(TypedDict):
    """An event in a diff. `why`: what caused it; null if the event does not say that."""

    position: Annotated[int, Field(ge=1)]
    time: str
    type: str
    actor: str
    words: str
    why: str | None


class DiffView(TypedDict):
    """What happened to a resource. `project`: null for one of the cloud. `words`: all changes in sentences.

    `events`: the first and the last ones; `more_events`: the number of those in between.
    """

    kind: str
    id: str
    project: str | None
    name: str | None
    what: What
    words: list[str]
    changes: list[ChangeView]
    events: list[EventOfDiff]
    more_events: int


async def diff(gateway: Gateway, request: Request) -> Response:
    """A page of the resources with events after `from` and until `to`, in the order of their first ones there."""
    after, limit = await page_key(gateway, request, LIST) or 0, parameters.limit(request)
    project, kind, id_ = (parameters.word(request, name) for name in ("project", "kind", "id"))
    first = await moments.position(gateway, request, "from") or 0
    last = await moments.position(gateway, request, "to")
    if last is None:
        last = await gateway.store.last_position()
    await moments.reached(gateway, max(last, parameters.position(request, "min_position") or 0))
    begins = await past.begins(gateway, request, EVENT_READ, last)
    within = Range(
        *(first, last, project, kind),
        id=id_.lower() if id_ is not None and parameters.UUID.fullmatch(id_.lower()) else id_,
        mine=past.shown_of(begins),
        begins=begins or {},
    )
    found = await changes.changed(gateway.past.pool, within, after, limit + 1)
    kept = found[:limit]
    samples = await changes.samples(gateway.past.pool, kept, within)
    items = [item(each, samples.get(each.ref, Sample([], 0)), begins) for each in kept]
    return listed(request, LIST, items, kept[-1].position if len(found) > limit else None, last)


def item(changed: Changed, sample: Sample, begins: Begins) -> DiffView:
    """A resource as the API shows it."""
    before, after = alive(changed.before, begins), alive(changed.after, begins)
    what = what_of(before, after)
    differing: list[ChangeView] = []
    if before is not None and after is not None:
        differing = [
            {"field": name, "before": old, "after": new, "words": fields.sentence(name, old, new)}
            for name, old, new in fields.changes(before, after)
        ]
        what = "changed" if differing else "unchanged"
    last = changed.after or changed.before
    view: Mapping[str, Any] = from_json(last.text) if last is not None else {}
    ref = changed.ref
    return {
        "kind": ref.kind,
        "id": ref.id,
        "project": view.get("project") if ref.project == "system" else ref.project,
        "name": view.get("name"),
        "what": what,
        "words": [SAID[what]] if what in SAID else [each["words"] for each in differing],
        "changes": differing,
        "events": [event(each) for each in sample.events],
        "more_events": sample.more,
    }


def alive(then: Then | None, begins: Begins) -> Mapping[str, Any] | None:
    """The view of a resource that existed and was not deleted; None also if it belonged to others then."""
    if then is None or then.deleted:
        return None
    view: Mapping[str, Any] = from_json(then.text)
    owner = view["id"] if "members" in view else view.get("project")
    if begins is not None and owner is not None and then.position < begins.get(owner, then.position + 1):
        return None
    return view


def what_of(before: object, after: object) -> What:
    if before is None:
        return "created" if after is not None else "came_and_went"
    return "deleted" if after is None else "changed"


def event(recorded: Recorded) -> EventOfDiff:
    sound = recorded.fault() is None
    return {
        "position": recorded.position,
        "time": times.text(recorded.moment if sound else recorded.stored_at),
        "type": recorded.headers.get("ce-type", ""),
        "actor": recorded.context.actor if sound else "",
        "words": words.sentence(recorded),
        "why": words.cause(recorded),
    }
