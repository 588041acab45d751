"""The usage of a project."""

from starlette.requests import Request
from starlette.responses import Response

from eventstore.log.envelope import Ref
from gateway.http import parameters
from gateway.reads import moments, past, reads
from gateway.state import Gateway, rows_reflect
from projections import usage as rows
from projections.projects import PROJECTS


async def usage(gateway: Gateway, request: Request) -> Response:
    """The usage of a project now, or with `at` at an earlier time. Raises Problem: 404, 410."""
    project = parameters.path_id(request, "project")
    at, ref = await moments.asked(gateway, request), Ref(project, "project", project)
    if at is None:
        await reads.living(gateway, request, PROJECTS, ref)
        await gateway.fresh(request, kind="vm")
        found = await rows.now(gateway.pool, project)
    else:
        then = await past.living(gateway, request, PROJECTS, ref, at)
        await gateway.caught_up()  # (the answer has an earlier position)
        found = await rows.as_of(gateway.pool, project, at.bound, then.position)
    rows_reflect(request, found["position"])
    return reads.answer(found)
