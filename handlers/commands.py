"""The one command loop: a request on `nebula.commands.<project>.<kind>.<verb>` becomes events, or a refusal.

It is a plain queue subscription: a FastStream subscriber in this place costs a third of the
throughput (docs/decisions).
Any number of handlers share the queue group. A refused command leaves no event; it is counted and logged.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic_core import to_json

from domain.base import Actor, Command, Event, Rejected, Uuid
from domain.known import FIELD, Known, reused
from eventstore.log.envelope import Context, Ref
from eventstore.log.operations import Record, record, recorded_in
from eventstore.log.store import Change, Conflict, EventStore, Loaded, Tip, TooLarge, TooMany, Unavailable
from eventstore.vault.vault import Erased, VaultUnavailable, WrongMasterKey
from handlers.apply import Applied, apply, caught_up, newest, now
from handlers.fences import Basis, Fences
from handlers.fingerprints import Fingerprint, Fingerprints
from handlers.health import KIND, VERB, Health
from handlers.keys import refuse_reuse
from handlers.routes import ROUTES, Facts, Route, basis, reference
from handlers.world import EVOLVE
from runtime import logs, subjects
from runtime.explained import explained
from runtime.replies import MOST_DETAIL
from runtime.responder import Responder

log = logs.get(__name__)

QUEUE = "handlers"
MOST_AT_ONCE = 512
#: What a reply leaves out: the operations that the resource knows, which only grow.
UNSAID = {"ok": {"state": {FIELD}}}
#: Seconds in which a command is decided again while others come first; that it waits in between at most, at first and
#: in the end.
PATIENCE, JITTER, MOST_JITTER = 4.0, 0.02, 0.4
#: Seconds in which handlers that stop still answer the commands that they were given.
STOPPING = 5.0


Said = Annotated[str, StringConstraints(max_length=512)]
"""What a caller says of itself and its request: it stands in the headers of events as it is."""


class Caller(BaseModel):
    """Who asks. `operation` and `fingerprint` identify the request where a person asks.

    `key`: the id that follows from a person's key, in what creates a resource.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    actor: Actor
    credential: Said | None = None
    request: Said | None = None
    operation: Said | None = None
    fingerprint: str | None = None
    key: Uuid | None = None
    causation: Said | None = None
    traceparent: Said | None = None

    def context(self, credential: str | None) -> Context:
        """What events say of the caller; `credential`: of its credential."""
        return Context(
            actor=self.actor,
            credential=credential,
            request=self.request,
            operation=self.operation,
            causation=self.causation,
            traceparent=self.traceparent,
        )


class Request(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    args: dict[str, Any]
    context: Caller


@dataclass(frozen=True, slots=True)
class Asked:
    """A command on its way: which one, on which aggregate, and the whole request with its fingerprint.

    `context`: what its events say of the caller.
    """

    route: Route
    ref: Ref
    project: str
    request: Request
    context: Context
    fingerprint: Fingerprint | None


class CommandLoop:
    """Answers commands. `facts.world` is what it looks things up in; the log is what decides."""

    def __init__(self, nc: Client, store: EventStore, facts: Facts) -> None:
        self._nc = nc
        self._store = store
        self._facts = facts
        self._fences = Fences(store, facts.world)
        self._fingerprints = Fingerprints(facts.vault)
        self._responder = Responder(nc)
        self.health = Health(nc)
        self._subscription: Subscription | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self.refused: dict[str, int] = {}

    def in_flight(self) -> int:
        """How many commands are being answered at this moment."""
        return len(self._running)

    async def start(self) -> None:
        self._subscription = await self._nc.subscribe(subjects.COMMANDS, queue=QUEUE, cb=self._accept)

    async def stop(self) -> None:
        """Take no more commands, so that other handlers get them, and answer those that are here already."""
        if self._subscription is None:
            return
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(STOPPING):
                await self._subscription.drain()  # type: ignore[no-untyped-call]
                await asyncio.gather(*self._running)

    async def _accept(self, msg: Msg) -> None:
        if not self._responder.accepts(msg):
            return
        await self._slots.acquire()
        task = asyncio.create_task(self._answer(msg))
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._slots.release()

    async def _answer(self, msg: Msg) -> None:
        started = time.perf_counter()
        _, _, project, kind, verb = msg.subject.split(".")
        request: Request | None = None
        try:
            request = Request.model_validate_json(msg.data)
            if (project, kind, verb) == (subjects.SYSTEM, KIND, VERB):
                await self._responder.answer(msg, to_json({"ok": await self.health.check()}))
                return
            reply = await self._handle(project, kind, verb, request)
        except (Rejected, ValidationError) as error:
            rejected = error if isinstance(error, Rejected) else invalid(error)
            if request is None:
                self.health.malformed.note("commands", msg.subject, error)
            self.refused[rejected.code] = self.refused.get(rejected.code, 0) + 1
            told(msg, request).info(
                "command refused",
                code=rejected.code,
                detail=rejected.detail,
                field=rejected.field,
                times=self.refused[rejected.code],
            )
            reply = problem(rejected)
        except (TooLarge, TooMany) as error:
            told(msg, request).info("command too large", error=str(error))
            reply = problem(too_large(request, error))
        except WrongMasterKey as error:
            told(msg, request).error("the vault cannot be opened", error=str(error))
            reply = problem(Rejected("vault_closed", "secrets cannot be sealed: the master key is wrong", status=503))
        except (Unavailable, VaultUnavailable, Conflict) as error:
            told(msg, request).warning("command not stored", error=str(error))
            full = "the log cannot store this now, as when its disk is full; try again"
            reply = problem(Rejected("log_unavailable", full, status=503))
        except Erased:
            reply = problem(Rejected("vm_deleted", "this VM was deleted", status=410))
        except Exception:
            told(msg, request).exception("command failed")
            reply = problem(Rejected("internal_error", "this is a bug in Nebula", status=500))
        else:
            log.debug(
                "command accepted",
                kind=kind,
                verb=verb,
                position=reply["ok"]["position"],
                replayed=reply["ok"]["replayed"],
                ms=round((time.perf_counter() - started) * 1e3, 2),
            )
        answer = to_json(reply, exclude=UNSAID)
        await self._responder.answer(msg, answer)  # lost: the operation id makes asking again safe

    async def _handle(self, project: str, kind: str, verb: str, request: Request) -> dict[str, Any]:
        """The reply to a command that was accepted, now or before."""
        route = ROUTES.get((kind, verb))
        if route is None:
            raise Rejected("unknown_command", f"there is no command {kind}.{verb}", status=404)
        id_ = request.args.get(route.key)
        if kind == "vm" and isinstance(id_, str) and id_ != id_.lower():  # a UUID is one in every spelling
            id_ = request.args[route.key] = id_.lower()
        if not isinstance(id_, str):
            raise Rejected("invalid_request", f"{route.key} is missing", status=422, field=route.key)
        try:
            ref = reference(kind, project, id_)
            _ = ref.subject
        except ValueError as error:
            raise Rejected("invalid_request", str(error), status=422, field="id") from error
        caller = request.context
        fingerprint = await self._fingerprints.of(caller.operation, caller.fingerprint)
        context = caller.context(await self._fingerprints.of_credential(caller.credential))
        asked = Asked(route, ref, project, request, context, fingerprint)
        deadline = asyncio.get_running_loop().time() + PATIENCE
        jitter = JITTER
        while True:  # by time: however many others come first, somebody is accepted, and each has its turn
            try:
                applied = await self._judged(asked)
                break
            except Rejected:
                if caller.key is not None:  # what the key was used for says more than what else is wrong
                    await refuse_reuse(self._store, caller.key, ref)
                raise
            except Conflict:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(random.uniform(0, jitter))  # noqa: S311
                jitter = min(2 * jitter, MOST_JITTER)
        if applied.events and kind != "vm":
            await self._facts.world.reached(applied.tip.position)  # the next command may build on it
        return await self._accepted(asked, applied)

    async def _judged(self, asked: Asked) -> Applied[Any]:
        """What became of the command. Raises Rejected, Erased, Conflict, Unavailable."""
        try:
            args, known = await self._prepared(asked)
        except (Rejected, Erased):
            repeated = await self._repeated(asked)
            if repeated is None:
                raise
            if asked.route.creates:
                await self._fences.confirm(asked.ref, repeated, {}, asked.context)
            return repeated
        return await self._applied(asked, {**args, "at": now()}, known)

    async def _applied(self, asked: Asked, args: dict[str, Any], known: Basis) -> Applied[Any]:
        """The command carried out, and judged with what happened beside it. Raises Rejected, Conflict, Unavailable."""
        route, ref, context = asked.route, asked.ref, asked.context
        applied = await apply(
            self._store,
            ref,
            asked.fingerprint.deciding(route.decide) if asked.fingerprint else route.decide,
            EVOLVE[ref.kind],
            route.command.model_validate(args | signed(route.command, context)),
            replace(context, operation=None) if route.deletes else context,
            world=self._facts.world,
            expect_new=route.creates,
            key=asked.request.context.key,
            beside=partial(self._beside, route) if route.beside else None,
            basis=None if route.creates else known,
        )
        if route.creates:
            await self._fences.confirm(ref, applied, known, context)
        elif route.deletes:
            return await self._fences.concluded(ref, applied, context.operation)
        return applied

    async def _beside(self, route: Route, state: Any, events: Sequence[Event]) -> Sequence[Change | Tip]:
        """What a route changes on other aggregates, as they are at the end of the log."""
        await caught_up(self._store, self._facts.world)
        return route.beside(state, events, self._facts) if route.beside else ()

    async def _repeated(self, asked: Asked) -> Applied[Any] | None:
        """The same request, accepted earlier: it stays accepted, whatever became of what it was built on."""
        loaded: Loaded[Any] = await newest(self._store, self._facts.world, asked.ref, EVOLVE[asked.ref.kind])
        operation = asked.request.context.operation
        known: Known | None = loaded.state.operations.get(operation) if loaded.state else None
        if known is None:
            return None
        if asked.fingerprint is None or not asked.fingerprint.matches(known.fingerprint):
            raise reused(f"for a different {known.verb} request")
        return Applied(loaded.state, loaded.tip, ())

    async def _accepted(self, asked: Asked, applied: Applied[Any]) -> dict[str, Any]:
        """The reply: what the operation has come to, by its record, and the state of the resource."""
        found: Record | None = None
        operation = asked.request.context.operation
        if operation is not None and asked.route.operates:
            found = record(operation, applied.told)
            if found is None:  # accepted before, or in two steps
                found = recorded_in(await self._store.history(asked.ref, fresh=True), operation)
        return {
            "ok": {
                "position": applied.tip.position,
                "version": applied.tip.version,
                "replayed": not applied.events,
                "operation": found and {"record": found.operation, "steps": found.steps},
                "state": applied.state,
            }
        }

    async def _prepared(self, asked: Asked) -> tuple[dict[str, Any], Basis]:
        """The arguments with what was looked up, and how far what they refer to was known.

        A refusal counts only once the world is as new as the log.
        """
        route, kind, project, world = asked.route, asked.ref.kind, asked.project, self._facts.world
        args = {k: v for k, v in asked.request.args.items() if v is not None}
        if route.operates:
            args["operation"] = asked.request.context.operation
            args["fingerprint"] = asked.fingerprint and asked.fingerprint.stored
        if route.prepare is None:
            return args, {}
        if not route.creates:  # what is counted (VMs of a project, users of an image) has to be the newest
            await caught_up(self._store, world)
        known = basis(kind, args, project, world)
        try:
            return await route.prepare(dict(args), project, self._facts), known
        except Rejected:
            await caught_up(self._store, world)
            known = basis(kind, args, project, world)
            return await route.prepare(dict(args), project, self._facts), known


def signed(command: type[Command], context: Context) -> dict[str, str]:
    """Who asks, for a command that makes something: whatever its arguments say."""
    return {"created_by": context.actor} if "created_by" in command.model_fields else {}


def told(msg: Msg, request: Request | None) -> logs.Logger:
    """The log with what a command is about bound to it."""
    _, _, project, kind, verb = msg.subject.split(".")
    caller = request.context if request else None
    who = {"request": caller.request, "actor": caller.actor} if caller else {}
    return log.bind(kind=kind, verb=verb, project=project, **who)


def too_large(request: Request | None, error: Exception) -> Rejected:
    """The refusal of what no single event can hold; it names the argument that takes most of the room."""
    sizes = {name: len(to_json(value)) for name, value in request.args.items()} if request else {}
    field = max(sizes, key=lambda name: sizes[name], default=None)
    room = f"{field} takes {sizes[field]} of its bytes" if field else str(error)
    return Rejected("request_too_large", f"this is more than one event can hold: {room}", status=413, field=field)


def problem(error: Rejected) -> dict[str, Any]:
    detail = error.detail[:MOST_DETAIL]
    body = {"code": error.code, "status": error.status, "detail": detail, "field": error.field}
    return {"problem": body}


def invalid(error: ValidationError) -> Rejected:
    """The first thing that is wrong with a command's arguments."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    text = explained(first)
    return Rejected("invalid_request", f"{field}: {text}" if field else text, status=422, field=field or None)
