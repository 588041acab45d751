"""Reads of one resource or a page of resources, from the projections' rows: now, or with `at` as they were."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response

from domain.access import OPERATION_READ
from domain.image import ImagePhase
from domain.kind import SYSTEM, Scope
from domain.operation import Status
from domain.spellings import architecture, lower
from domain.vm import Phase
from eventstore.log.envelope import Ref
from gateway.http import parameters
from gateway.http.parameters import not_found, path_id
from gateway.http.problems import Problem
from gateway.reads import moments, past, waiting
from gateway.reads.moments import At
from gateway.state import Gateway, begins, mine, rows_reflect
from gateway.writes import ANY
from projections import aggregates, nodes, operation_rows, pages, times
from projections.aggregates import Aggregates, Found
from projections.books import TABLES
from projections.images import IMAGES
from projections.nodes import NODES
from projections.past import queries
from projections.projects import PROJECTS
from projections.tokens import TOKENS
from projections.vms import VMS
from runtime import subjects

S = TypeVar("S")


def answer(body: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(body), 200, headers, "application/json")


def as_json(text: str | bytes) -> Response:
    """An answer that is JSON already."""
    return Response(text, 200, media_type="application/json")


# ── one ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def known(gateway: Gateway, request: Request, table: Aggregates[S, Any], ref: Ref) -> Found[S]:
    """A resource, deleted or not. Raises Problem (404) if it does not exist, or if the caller may not see it.

    Both take the same steps: waits and queries do not tell which one it was.
    """
    seen = mine(request, table.of.readable_by)
    if seen is not None and ref.project in seen:
        seen = None  # a cheaper query for the same row
    again = begins(gateway, request, table.of.readable_by)

    async def own() -> tuple[Found[S] | None, int]:
        """The resource, unless it is of an earlier project of the same id."""
        found, position = await aggregates.get(gateway.pool, table, ref, mine=seen)
        if found is not None and found.position < again.get(table.of.owner_of(ref.project, found.state), 0):
            return None, position
        return found, position

    await gateway.fresh(request, ref.id)
    found, position = await own()
    if found is None:
        await gateway.caught_up(request)
        found, position = await own()
    rows_reflect(request, position)
    if found is None:
        raise not_found(table.kind, ref.id)
    return found


async def living(gateway: Gateway, request: Request, table: Aggregates[S, Any], ref: Ref) -> Found[S]:
    """A resource that is not deleted. Raises Problem: 404 if it does not exist, 410 if it was deleted."""
    found = await known(gateway, request, table, ref)
    if found.deleted:
        hint = "; its earlier states can be read with ?at=" if table is VMS else ""
        raise Problem(410, f"{table.kind}_{table.ended}", f"{table.kind} {ref.id} was {table.ended}{hint}")
    return found


async def one(gateway: Gateway, request: Request, kind: str) -> Response:
    """One resource of a kind."""
    id_ = path_id(request, kind)
    table = TABLES[kind]
    project = path_id(request, "project") if table.of.scope is Scope.PROJECT else SYSTEM
    ref = Ref(table.of.project_of(project, id_), kind, id_)
    at = await moments.asked(gateway, request)
    if at is not None:
        return as_json((await past.living(gateway, request, table, ref, at)).text)
    found: Found[Any] = await living(gateway, request, table, ref)
    return answer(shown(gateway, table, table.shown(found)))


def shown(gateway: Gateway, table: Aggregates[Any, Any], view: Mapping[str, Any]) -> Mapping[str, Any]:
    """The view of a resource; for a node with the values from its heartbeats, for a token with its last use."""
    if table is TOKENS:
        return {**view, "last_used_at": times.maybe(gateway.uses.of(view["id"]))}
    if table is not NODES:
        return view
    return {**view, **gateway.heartbeats.view(view["id"])}


#: What the JSON of a node has where its heartbeat belongs. No text contains it: a quote in a text is escaped.
NO_HEARTBEAT = to_json(nodes.NO_HEARTBEAT)[1:-1].decode()


def with_heartbeat(gateway: Gateway, id_: str, text: str) -> str:
    """The JSON of a node with the values from its heartbeats. The rest of it is not read."""
    before, found, after = text.partition(NO_HEARTBEAT)
    if not found:  # a row of another version
        return to_json(shown(gateway, NODES, from_json(text))).decode()
    return f"{before}{to_json(gateway.heartbeats.view(id_))[1:-1].decode()}{after}"


async def vm(gateway: Gateway, request: Request) -> Response:
    """A VM, now or at an earlier time, when it may be deleted."""
    ref = Ref(path_id(request, "project"), "vm", path_id(request, "vm"))
    at = await moments.asked(gateway, request)
    if at is not None:
        return as_json((await past.known(gateway, request, VMS, ref, at)).text)
    return answer(VMS.shown(await living(gateway, request, VMS, ref)))


async def operation(gateway: Gateway, request: Request) -> Response:
    """An operation. With `wait`, answers when it has ended, or after that time; with `at`, as it was."""
    id_ = path_id(request, "operation")
    at = await moments.asked(gateway, request)
    if at is not None:
        return await operation_then(gateway, request, id_, at)
    seconds = parameters.wait(request)
    await gateway.fresh(request, id_, kind=ANY, patience=seconds)  # another command of the caller may have ended it
    seen = mine(request, OPERATION_READ)
    again = begins(gateway, request, OPERATION_READ)
    found, position = await operation_rows.get(gateway.pool, id_, mine=seen, begins=again)
    if found is None:
        await gateway.caught_up(request)
        found, position = await operation_rows.get(gateway.pool, id_, mine=seen, begins=again)
    rows_reflect(request, position)
    if found is None:
        raise not_found("operation", id_)
    if seconds and not waiting.has_ended(found):
        later, position = await waiting.ended(gateway, id_, seconds)
        rows_reflect(request, position)
        found = later or found
    return answer(found)


async def operation_then(gateway: Gateway, request: Request, id_: str, at: At) -> Response:
    """An operation as it was. Raises Problem (404) if it was not accepted yet."""
    position = await past.ready(gateway, request, at)
    own = await past.begins(gateway, request, OPERATION_READ, position)
    found = await queries.operation(
        gateway.past.pool, id_, position, mine=past.shown_of(own), begins=own if own is not None else {}
    )
    rows_reflect(request, position)
    if found is None:
        raise Problem(404, "operation_not_found", f"there was no operation {id_} then", [("at", "too early")])
    return answer(found)


# ── many ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def listed(request: Request, name: str, items: object, following: int | None, position: int) -> Response:
    """The answer with one page of a list. Raises Problem (503) if its rows are older than this read needs."""
    rows_reflect(request, position)
    token = parameters.token(request, name, following)
    return answer({"items": items, "next_page_token": token, "position": position})


async def page_key(gateway: Gateway, request: Request, name: str) -> int | None:
    """The key in a page token (a position that the log has reached); None if not given. Raises Problem."""
    key = parameters.page_token(request, name)
    return None if key is None else await gateway.within(request, "page_token", key)


async def many(gateway: Gateway, request: Request, kind: str, filters: Mapping[str, str | None]) -> Response:
    """A page of resources of a kind."""
    table = TABLES[kind]
    after, limit = await page_key(gateway, request, table.table) or 0, parameters.limit(request)
    at, seen = await moments.asked(gateway, request), mine(request, table.of.readable_by)
    if at is None:
        await gateway.fresh(request, kind=kind)
        found = await pages.matching(gateway.pool, table, filters, after, limit, mine=seen)
    else:
        found = await past.page(gateway, request, table, filters, at)
    texts = found.texts
    if at is not None:
        pass  # as they were, without what only this gateway knows
    elif table is NODES:
        texts = [with_heartbeat(gateway, id_, text) for id_, text in zip(found.ids, texts, strict=True)]
    elif table is TOKENS:
        items = [shown(gateway, table, item) for item in found.items]
        return listed(request, table.table, items, found.next, found.position)
    rows_reflect(request, found.position)
    rest = to_json({"next_page_token": parameters.token(request, table.table, found.next), "position": found.position})
    return as_json(f'{{"items":[{",".join(texts)}],'.encode() + rest[1:])


async def projects(gateway: Gateway, request: Request) -> Response:
    return await many(gateway, request, "project", {"tag": parameters.word(request, "tag")})


async def all_of(gateway: Gateway, request: Request, kind: str) -> Response:
    """The resources of a kind, or of a kind in a project, by the filters of their table."""
    table = TABLES[kind]
    filters = {name: parameters.word(request, name) for name in table.filters}
    if table.of.scope is Scope.PROJECT:
        project = filters["project"] = path_id(request, "project")
        await inside(gateway, request, project)
    return await many(gateway, request, kind, filters)


async def inside(gateway: Gateway, request: Request, project: str) -> None:
    """Look up the project of a list. Raises Problem: 404, 410."""
    ref, at = Ref(project, "project", project), await moments.asked(gateway, request)
    if at is None:
        await living(gateway, request, PROJECTS, ref)
    else:
        await past.living(gateway, request, PROJECTS, ref, at)


async def images(gateway: Gateway, request: Request) -> Response:
    filters = {
        "phase": parameters.choice(request, "phase", ImagePhase),
        "project": parameters.word(request, "project"),
        "distribution": spelled(request, "distribution", lower),
        "release": spelled(request, "release", lower),
        "architecture": spelled(request, "architecture", architecture),
    }
    return await many(gateway, request, "image", filters)


def spelled(request: Request, name: str, spelling: Callable[[str], str]) -> str | None:
    """A word to search for, in the spelling of the log."""
    text = parameters.word(request, name)
    return None if text is None else spelling(text)


async def image(gateway: Gateway, request: Request) -> Response:
    """An image. With `project`: 404 for an image of another project."""
    id_, project = path_id(request, "image"), parameters.word(request, "project")
    ref, at = Ref(subjects.SYSTEM, "image", id_), await moments.asked(gateway, request)
    if at is not None:
        view = from_json((await past.living(gateway, request, IMAGES, ref, at)).text)
    else:
        view = IMAGES.shown(await living(gateway, request, IMAGES, ref))
    if project is not None and view["project"] not in (None, project):
        raise not_found("image", id_)
    return answer(view)


async def vm_list(gateway: Gateway, request: Request) -> Response:
    """The VMs of a project that are not deleted."""
    project = path_id(request, "project")
    filters = vm_filters(request)
    await page_key(gateway, request, VMS.table)  # checked before the project is looked up
    await inside(gateway, request, project)
    return await many(gateway, request, "vm", {**filters, "project": project})


async def all_vms(gateway: Gateway, request: Request) -> Response:
    """The VMs of all projects that the caller sees, without deleted ones."""
    return await many(gateway, request, "vm", vm_filters(request))


def vm_filters(request: Request) -> dict[str, str | None]:
    return {
        "label": parameters.label(request),
        "phase": parameters.choice(request, "phase", Phase),
        **{name: parameters.word(request, name) for name in ("tag", "name", "node")},
    }


async def operations(gateway: Gateway, request: Request) -> Response:
    """Operations, the newest first."""
    filters = {
        "status": parameters.choice(request, "status", Status),
        **{name: parameters.word(request, name) for name in ("project", "vm", "kind")},
    }
    before, limit = await page_key(gateway, request, "operations"), parameters.limit(request)
    at = await moments.asked(gateway, request)
    if at is not None:
        position = await past.ready(gateway, request, at)
        own = await past.begins(gateway, request, OPERATION_READ, position)
        items, following, position = await queries.operations(
            gateway.past.pool,
            *(filters, position, before, limit),
            mine=past.shown_of(own),
            begins=own if own is not None else {},
        )
        return listed(request, "operations", items, following, position)
    await gateway.fresh(request, kind=ANY)
    items, following, position = await operation_rows.page(
        gateway.pool,
        *(filters, before, limit),
        mine=mine(request, OPERATION_READ),
        begins=begins(gateway, request, OPERATION_READ),
    )
    return listed(request, "operations", items, following, position)
