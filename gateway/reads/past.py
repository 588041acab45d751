"""Resources and lists as they were: from the rows of the past, and one resource from the log if these lack it.

Roles are those of now. A role in a project reaches back to the creation of the present project of that id: what was
before belonged to others. Whoever sees all projects sees those too.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from pydantic_core import from_json, to_json
from starlette.requests import Request

from domain.access import Permission
from domain.kind import SYSTEM, Scope
from eventstore.log.envelope import Recorded, Ref
from eventstore.log.judge import evolved
from eventstore.log.store import is_up_to
from gateway.http import parameters
from gateway.http.problems import Problem
from gateway.reads import moments
from gateway.reads.moments import At
from gateway.state import Gateway, mine, reflects
from projections.aggregates import OWNER, Aggregates
from projections.database import Mine, ReadModelsUnavailable
from projections.pages import Page
from projections.past import queries
from projections.past.queries import Then
from projections.projects import PROJECTS

S = TypeVar("S")
Sees = Callable[[str], bool]
Begins = Mapping[str, int] | None
"""The projects that a caller may see at a moment, with the positions of their creation; None: all there ever were."""


async def known(
    gateway: Gateway, request: Request, table: Aggregates[S, Any], ref: Ref, at: At, sees: Sees = lambda _: True
) -> Then:
    """A resource as it was, deleted then or not. Raises Problem (404) if it did not exist, or if the caller may not
    see it, after the same steps. `sees`: whether the caller may see it, by its text.
    """
    try:
        then = await _of_rows(gateway, request, table, ref, at)
    except ReadModelsUnavailable:
        then = await _of_log(gateway, request, table, ref, at)
    if not sees(then.text):
        raise too_early(table, ref)
    reflects(request, then.position)
    return then


async def living(gateway: Gateway, request: Request, table: Aggregates[S, Any], ref: Ref, at: At) -> Then:
    """A resource that was not deleted then. Raises Problem: 404 as `known`, 410."""
    return undeleted(table, ref, await known(gateway, request, table, ref, at))


def undeleted(table: Aggregates[S, Any], ref: Ref, then: Then) -> Then:
    """Raises Problem (410) for a resource that was deleted then."""
    if then.deleted:
        detail = f"{table.kind} {ref.id} was {table.ended} at position {then.position}"
        raise Problem(410, f"{table.kind}_{table.ended}", detail)
    return then


async def page(
    gateway: Gateway, request: Request, table: Aggregates[Any, Any], filters: Mapping[str, str | None], at: At
) -> Page[Any]:
    """A page of a list as it was. Raises ReadModelsUnavailable, NotReached, Problem (400)."""
    position = await ready(gateway, request, at)
    seen = shown_of(await begins(gateway, request, table.of.readable_by, position))
    after, limit = parameters.page_token(request, table.table) or 0, parameters.limit(request)
    return await queries.page(gateway.past.pool, table, filters, position, after, limit, mine=seen)


async def ready(gateway: Gateway, request: Request, at: At) -> int:
    """The position of a moment, when the rows of the past are there, and at `min_position`.

    Raises ReadModelsUnavailable, NotReached.
    """
    least = parameters.position(request, "min_position") or 0
    await moments.reached(gateway, max(at.position, least))
    return at.position


async def begins(gateway: Gateway, request: Request, permission: Permission, position: int) -> Begins:
    """The projects that a caller may see at a position. Raises ReadModelsUnavailable, NotReached."""
    seen = mine(request, permission)
    if seen is None:
        return None
    # a project that was created anew is not taken for its predecessor: the past has what the caller's roles follow from
    least = max(position, gateway.directory.projects)
    await moments.reached(gateway, least)
    found = await queries.begins(gateway.past.pool, seen, least)
    return {project: begin for project, begin in found.items() if begin <= position}


def shown_of(projects: Begins) -> Mine:
    return None if projects is None else sorted(projects)


async def _of_rows(gateway: Gateway, request: Request, table: Aggregates[Any, Any], ref: Ref, at: At) -> Then:
    position = await ready(gateway, request, at)
    projects = await begins(gateway, request, table.of.readable_by, position)
    if ref.project != SYSTEM:
        _judge_project(projects, ref.project)
    then = await queries.one(gateway.past.pool, table, ref, position, mine=shown_of(projects))
    if then is None and (projects is None or ref.project in projects):
        await as_it_was(gateway, table, ref, position)  # says where its first event is
    return _seen(then, projects, table, ref)


async def _of_log(gateway: Gateway, request: Request, table: Aggregates[S, Any], ref: Ref, at: At) -> Then:
    """The same, folded from the log itself."""
    seen, projects = mine(request, table.of.readable_by), None
    if seen is not None:
        found = {project: await _begin(gateway, project, at.bound) for project in seen}
        projects = {project: begin for project, begin in found.items() if begin is not None}
    if ref.project != SYSTEM:
        _judge_project(projects, ref.project)
    try:
        state, last = await as_it_was(gateway, table, ref, at.bound)
    except Problem:
        if projects is None:
            raise
        raise too_early(table, ref) from None
    owner = table.of.owner(state) if table.of.scope is Scope.CLOUD else None
    hidden = projects is not None and owner is not None and owner not in projects
    text = to_json(table.render(state, last.version, last.position)).decode()
    then = Then(text, table.of.deleted(state), last.version, last.position)
    return _seen(None if hidden else then, projects, table, ref)


def _judge_project(projects: Begins, project: str) -> None:
    if projects is not None and project not in projects:
        raise too_early(PROJECTS, Ref(project, "project", project))


def _seen(then: Then | None, projects: Begins, table: Aggregates[Any, Any], ref: Ref) -> Then:
    """A resource, unless it is one of an earlier project of the same id. Raises Problem (404)."""
    if then is None:
        raise too_early(table, ref)
    owner = from_json(then.text)["project"] if projects is not None and OWNER in table.columns else ref.project
    if projects is not None and then.position < projects.get(owner, 0):
        raise too_early(table, ref)
    return then


def too_early(table: Aggregates[Any, Any], ref: Ref, why: str = "") -> Problem:
    detail = f"there was no {table.of.title} {ref.id} at that time{why}"
    return Problem(404, f"{table.kind}_not_found", detail, [("at", "too early")])


async def _begin(gateway: Gateway, project: str, at: int | datetime) -> int | None:
    """The position at which the present project of an id was created; None if that was later, or there is none."""
    state: Any = None
    first: Recorded | None = None
    for recorded in await gateway.store.history(Ref(project, "project", project), fresh=True):
        before = state
        state, _ = evolved(PROJECTS.of.evolve, state, recorded.event)
        if state is None or PROJECTS.of.deleted(state):
            first = None
        elif before is None or PROJECTS.of.deleted(before):
            first = recorded
    return first.position if first is not None and is_up_to(first, at) else None


async def as_it_was(gateway: Gateway, table: Aggregates[S, Any], ref: Ref, at: int | datetime) -> tuple[S, Recorded]:
    """A resource after the last of its events up to a position or a time, folded from the log itself; and that event.

    The resource may be deleted. Raises Problem (404) if it did not exist yet.
    """
    history = await gateway.store.history(ref, fresh=True)
    state: S | None = None
    last = None
    for recorded in history:
        if not is_up_to(recorded, at):
            break
        state, _ = evolved(table.of.evolve, state, recorded.event)
        last = recorded
    if state is None or last is None:
        first = f"its first event is at position {history[0].position}" if history else "it has no events"
        raise too_early(table, ref, f": {first}")
    return state, last
