"""Commands over HTTP: the same steps for all calls in `actions.py`.

An answer shows the operation and the resource from the handlers' reply. Postgres is needed only to wait for an
operation's end. It is safe to send a command again with the same operation id, so a request without an answer is
repeated for a short time.
"""

import hashlib
import uuid
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from domain.kind import nobody
from domain.kinds import KINDS
from eventstore.log.envelope import Ref
from gateway.access.forbidden import for_project
from gateway.commands import accepted, bodies, tokens
from gateway.commands.actions import Action
from gateway.commands.requested import Requested
from gateway.http import content
from gateway.http.parameters import idempotency_key, path_id, wait
from gateway.http.problems import LOG_UNAVAILABLE, PASSED_ON, Problem
from gateway.reads import waiting
from gateway.state import Gateway, caller, reflects
from projections.database import clean_json
from runtime import subjects
from runtime.bus import replies, requests
from runtime.bus.requests import Patience, Unanswered
from runtime.random_id import random_uuid

#: Seconds for the answer to a command.
PATIENCE = Patience(one_try=2.5, in_all=5.0, nobody=1.0)

HANDLERS_OUTDATED = (
    "handlers of an earlier version do not know this command: upgrade them, or try again if others are of this version"
)

#: The namespace of ids that are derived from a caller's key.
NAMESPACE = uuid.UUID("5f0c4e0e-6b7a-5d0c-9c56-7a0f5f3c7d11")


async def command(gateway: Gateway, request: Request, action: Action) -> Response:
    """Send a command to handlers, and answer with its operation and its resource."""
    seconds = wait(request)
    requested = parse(request, action, await content.read(request))
    kind = action.kind
    if action.creates and KINDS[kind].owner is not nobody:
        project = requested.args.get("project")
        for_project(requested.caller.identity.access, action.permission, None if project is None else str(project))
    made = None
    if tokens.issues(action):
        requested, made = tokens.minted(gateway.pepper, requested, idempotency_key(request))
    reply = await ask(gateway, requested)
    try:
        found = accepted.shown(kind, reply)
    except replies.InvalidReply as error:
        raise invalid_reply(str(error)) from error
    position, operation, resource = reply.position, found.operation, found.resource
    actor = requested.caller.identity.actor
    gateway.writes.note(actor, kind, position, requested.resource, requested.operation, requested.project)
    reflects(request, position)
    if seconds and not waiting.has_ended(operation):
        ended = await waiting.ended_after(gateway, requested.operation, position, seconds)
        if ended is not None and ended["position"] >= operation["position"]:
            operation = ended
            resource = await waiting.resource(gateway, Ref(requested.project, kind, requested.resource), resource)
    ended_in_time = seconds > 0 and waiting.has_ended(operation)
    headers = {"Location": f"/v1/operations/{requested.operation}"}
    if reply.replayed:
        headers["Idempotent-Replayed"] = "true"
    answer: dict[str, Any] = {"operation": operation, kind: resource, "position": position}
    if made is not None:
        answer |= tokens.secret_of(made, reply)
        headers |= tokens.NO_STORE
    return Response(to_json(answer), 200 if ended_in_time else 202, headers, "application/json")


def parse(request: Request, action: Action, raw: bytes) -> Requested:
    """The command of a request. Raises Problem and ValidationError."""
    body = action.body.model_validate_json(raw or b"{}")
    who = caller(request)
    key = idempotency_key(request)
    path = action.path.format_map(
        {kind: path_id(request, kind) for kind in request.path_params}
    )  # ids in their canonical spelling
    project = path_id(request, "project") if "project" in request.path_params else subjects.SYSTEM
    actor = who.identity.actor
    own = chosen(body) if action.creates else path_id(request, action.kind)
    derived_id = derived("resource", actor, path, key) if action.creates and key is not None else None
    resource = own or derived_id or random_uuid()
    if action.kind == "project":
        project = resource
    canonical = body.model_dump_json(exclude_unset=True)  # in the order of the model's fields
    return Requested(
        action=action,
        project=project,
        resource=resource,
        key=derived_id,
        operation=derived("operation", actor, action.method, path, key),
        fingerprint=hashlib.sha256(f"{action.method} {path}\n{canonical}".encode()).hexdigest(),
        args=body.args(),
        caller=who,
    )


def chosen(body: bodies.Body) -> str | None:
    """The id that the body chooses for the new resource; None if it chooses none."""
    id_: str | None = getattr(body, "id", None)
    if id_ is None and isinstance(body, bodies.CreateNamed):
        return bodies.slug(body.name)
    return id_


def derived(*parts: str | None) -> str:
    """A UUID that is derived from the parts; the last one is the caller's key. Without a key, a random UUID."""
    if parts[-1] is None:
        return random_uuid()
    return str(uuid.uuid5(NAMESPACE, "\0".join(part or "" for part in parts)))


async def ask(gateway: Gateway, requested: Requested) -> accepted.Reply:
    """The handlers' reply. Raises Problem for a refusal, and without an answer (503)."""
    action = requested.action
    outcomes = gateway.metrics.commands
    try:
        reply = await send(gateway, requested)
    except Unanswered as error:
        outcomes.labels(action.kind, action.verb, "unavailable").inc()
        raise Problem(503, "log_unavailable", LOG_UNAVAILABLE) from error
    if isinstance(reply, replies.Refusal):
        outcomes.labels(action.kind, action.verb, "refused").inc()
        if reply.code == "unknown_command":  # all that the gateway sends is known to handlers of its version
            raise Problem(503, "handlers_outdated", HANDLERS_OUTDATED)
        name = reply.field.removeprefix("spec.") if reply.field else None
        raise Problem(reply.status, reply.code, reply.detail, [(name, reply.detail)] if name else ())
    outcomes.labels(action.kind, action.verb, "replayed" if reply.replayed else "accepted").inc()
    return reply


async def send(gateway: Gateway, requested: Requested) -> accepted.Reply | replies.Refusal:
    """The reply. The request is repeated until the deadline while nobody answers.

    Raises Unanswered; Problem: 502 if the reply cannot be read, 413 if the command does not fit into a message.
    """
    subject = subjects.command(requested.project, requested.action.kind, requested.action.verb)
    payload = requested.payload()
    if len(payload) > gateway.nc.max_payload:
        raise too_large(requested, gateway.nc.max_payload)
    try:
        reply = await requests.ask(gateway.nc, subject, payload, PATIENCE, pace=gateway.pace)
        return checked(accepted.read(requested.action.kind, storable(reply.data)))
    except replies.InvalidReply as error:
        raise invalid_reply(str(error)) from error


def storable(data: bytes) -> bytes:
    """A reply without NUL characters, which Postgres cannot store: so it is the same as from the rows."""
    return clean_json(data.decode(errors="replace")).encode() if b"\\u0000" in data else data


def checked(reply: accepted.Reply | replies.Refusal) -> accepted.Reply | replies.Refusal:
    """The reply. Raises InvalidReply for a refusal with an unknown status."""
    if isinstance(reply, replies.Refusal) and reply.status not in PASSED_ON:
        raise replies.InvalidReply(f"a refusal with status {reply.status}")
    return reply


def invalid_reply(why: str) -> Problem:
    detail = (
        f"the reply of the handlers is invalid ({why}); do they have the gateway's version? Try again with the same key"
    )
    return Problem(502, "handlers_answer_invalid", detail)


def passed_on(refusal: replies.Refusal) -> Problem:
    """The problem for a refusal of handlers."""
    if refusal.status not in PASSED_ON:
        return invalid_reply(f"a refusal with status {refusal.status}")
    field = refusal.field
    return Problem(refusal.status, refusal.code, refusal.detail, [(field, refusal.detail)] if field else ())


def too_large(requested: Requested, limit: int) -> Problem:
    """The refusal of a command that does not fit into a message. It names the largest field."""
    sizes = {name: len(to_json(value)) for name, value in requested.args.items()}
    field = max(sizes, key=lambda name: sizes[name])
    detail = f"a command may have at most {limit} bytes; {field} takes {sizes[field]}"
    return Problem(413, "request_too_large", detail, [(field, f"takes {sizes[field]} bytes")])
