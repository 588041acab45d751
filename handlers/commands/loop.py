"""The command loop: a request on `nebula.commands.<project>.<kind>.<verb>` becomes events, or a refusal.

It is a plain queue subscription of nats-py: with FastStream, the throughput would be a third lower (docs/decisions.md).
Any number of handlers processes share the queue group. A refused command leaves no event; it is counted and logged.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from pydantic import ValidationError

from domain.accepted_requests import FIELD, AcceptedRequest, KeyReused
from domain.access import Access
from domain.base import Category, Event, Rejected
from domain.contract import Caller, CommandReply, CommandRequest, OperationReply
from domain.operation import Operation
from eventstore.log.envelope import Context, Ref
from eventstore.log.operations import Record, record, recorded_in
from eventstore.log.store import Change, Conflict, EventStore, Loaded, Tip, TooLarge, TooMany
from eventstore.parking.parking import Parking
from eventstore.vault.vault import Erased
from handlers.apply import Applied, apply, caught_up, newest, now
from handlers.commands import parked, preview
from handlers.commands.fences import Basis, Fences
from handlers.commands.fingerprints import Fingerprint, Fingerprints
from handlers.commands.lookups import Args, Facts, RelatedChanges, basis
from handlers.commands.parked import ParkedCommands
from handlers.commands.permissions import Permissions
from handlers.commands.preview import Previews
from handlers.commands.routes import ROUTES, Route
from handlers.health import KIND, VERB, Health
from handlers.keys import refuse_reuse
from handlers.refusals import refusal, too_large
from runtime import logs, subjects
from runtime.bus import replies
from runtime.bus.replies import Refusal
from runtime.bus.responder import Answer, Responder
from runtime.tasks.backoff import Backoff

log = logs.get(__name__)

QUEUE = "handlers"
MOST_AT_ONCE = 512
#: What a reply leaves out: the resource's accepted operations, whose number only grows.
OMITTED = {"ok": {"state": {FIELD}}}
#: Seconds for which a command is decided again after conflicts; the pauses between the tries.
PATIENCE = 4.0
RETRY = Backoff(first=0.02, last=0.4, jitter=1.0)
#: Seconds for the answers to commands that are in flight when the process stops.
STOPPING = 4.0


@dataclass(frozen=True, slots=True)
class Incoming:
    """A command that is being handled: its route, its aggregate, and the whole request with its fingerprint.

    `context`: the part of its events about the caller.
    """

    route: Route
    ref: Ref
    project: str
    request: CommandRequest
    context: Context
    fingerprint: Fingerprint | None


class CommandLoop:
    """Answers commands. It looks things up in `facts.world`; the append to the log decides."""

    def __init__(self, nc: Client, store: EventStore, facts: Facts, parking: Parking) -> None:
        self._nc = nc
        self._store = store
        self._facts = facts
        self._fences = Fences(store, facts.world)
        self._fingerprints = Fingerprints(facts.vault)
        self._permissions = Permissions(store, facts.world)
        self._previews = Previews(store, facts, self._permissions)
        self._parked = ParkedCommands(parking, self._permissions)
        self._responder = Responder(nc, refusal)
        self.health = Health(nc)
        self._subscription: Subscription | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self.refused: dict[str, int] = {}

    def in_flight(self) -> int:
        """The number of commands that are being answered."""
        return len(self._running)

    async def start(self) -> None:
        self._subscription = await self._nc.subscribe(subjects.COMMANDS, queue=QUEUE, cb=self._accept)

    async def stop(self) -> None:
        """Accept no more commands, so that other processes get them, and answer those in flight. Returns after STOPPING
        seconds at the latest.
        """
        if self._subscription is None or not self._nc.is_connected:
            return
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(STOPPING):
                await self._subscription.drain()  # type: ignore[no-untyped-call]
                await asyncio.gather(*self._running)
                await self._nc.flush()  # or answers that wait to be written would be lost with the connection

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
        request: CommandRequest | None = None

        async def work(msg: Msg) -> Answer:
            nonlocal request
            _, _, project, kind, verb = msg.subject.split(".")
            request = CommandRequest.model_validate_json(msg.data)
            if (project, kind, verb) == (subjects.SYSTEM, KIND, VERB):
                return Answer(replies.accepted(await self.health.check()))
            if (project, kind) == (subjects.SYSTEM, parked.KIND):
                return Answer(replies.accepted(await self._parked.handle(verb, request)))
            if (kind, verb) == (preview.KIND, preview.VERB):
                return Answer(replies.accepted(await self._previews.of(project, request)))
            try:
                reply = await self._handle(project, kind, verb, request)
            except (TooLarge, TooMany) as error:
                raise too_large(request.args, error) from error
            log.debug(
                "command accepted",
                kind=kind,
                verb=verb,
                position=reply.position,
                replayed=reply.replayed,
                ms=round((time.perf_counter() - started) * 1e3, 2),
            )
            return Answer(replies.accepted(reply.as_dict(), OMITTED))

        def note(msg: Msg, error: Exception, refusal: Refusal) -> None:
            if request is None:
                self.health.malformed.note("commands", msg.subject, error)
            self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1
            bound_log(msg, request).log(
                logging.INFO if isinstance(error, Rejected | ValidationError | Erased) else logging.WARNING,
                "command refused",
                code=refusal.code,
                detail=refusal.detail,
                field=refusal.field,
                error=None if isinstance(error, Rejected | ValidationError) else repr(error),
                times=self.refused[refusal.code],
            )

        await self._responder.carry_out(msg, work, note)  # if a reply is lost, the caller repeats

    async def _handle(
        self, project: str, kind: str, verb: str, request: CommandRequest
    ) -> CommandReply[Operation, Any]:
        """The reply to an accepted command, or to its repeat."""
        route = ROUTES.get((kind, verb))
        if route is None:
            raise Rejected("unknown_command", f"there is no command {kind}.{verb}", Category.NOT_FOUND)
        id_ = request.args.get(kind)
        if not isinstance(id_, str):
            raise Rejected("invalid_request", f"{kind} is missing; give the id", Category.INVALID, field=kind)
        request.args[kind] = route.kind.canonical(id_)
        try:
            ref = route.ref(project, id_)
            _ = ref.subject
        except ValueError as error:
            raise Rejected("invalid_request", str(error), Category.INVALID, field="id") from error
        if ref.project != project:  # who may only send commands of one project must not reach another one
            detail = f"a {verb} of {kind} {ref.id} has to be sent on {subjects.command(ref.project, kind, verb)}"
            raise Rejected("invalid_request", detail, Category.INVALID, field="project")
        caller = request.context
        access = await self._permissions.check(route, ref, dict(request.args), caller)
        fingerprint = await self._fingerprints.of(caller.operation, caller.fingerprint)
        context = event_context(caller, await self._fingerprints.of_credential(caller.credential))
        incoming = Incoming(route, ref, project, request, context, fingerprint)
        deadline = asyncio.get_running_loop().time() + PATIENCE
        pauses = RETRY.pauses()
        while True:  # limited by time, not by tries: each conflict means that another command was accepted
            try:
                applied = await self._decide(incoming, access)
                break
            except Rejected:
                if caller.key is not None:  # if the key was used before, that is the better explanation
                    await refuse_reuse(self._store, caller.key, ref)
                raise
            except Conflict:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(next(pauses))
            access = await self._permissions.check(route, ref, dict(request.args), caller)
        if applied.events and kind != "vm":
            await self._facts.world.reached(applied.tip.position)  # the next command may refer to it
        return await self._reply(incoming, applied)

    async def _decide(self, incoming: Incoming, access: Access) -> Applied[Any]:
        """The result of the command. Raises Rejected, Erased, Conflict, Unavailable."""
        try:
            args, known = await self._prepare(incoming)
        except (Rejected, Erased):
            repeated = await self._earlier_result(incoming)
            if repeated is None:
                raise
            if incoming.route.lookup.behind:
                await self._fences.confirm(incoming.ref, repeated, {}, incoming.context)
            return repeated
        return await self._decide_and_append(incoming, access, {**args, "at": now()}, known)

    async def _decide_and_append(self, incoming: Incoming, access: Access, args: Args, known: Basis) -> Applied[Any]:
        """Decide and append, and check the fences. Raises Rejected, Conflict, Unavailable."""
        route, ref, context = incoming.route, incoming.ref, incoming.context
        kind, verb, lookup = route.kind, route.verb, route.lookup
        command = verb.admit(access, route.command.model_validate(args), self._facts.world.get(ref).state)
        applied = await apply(
            self._store,
            ref,
            incoming.fingerprint.deciding(kind.decide) if incoming.fingerprint else kind.decide,
            kind.evolve,
            command,
            replace(context, operation=None) if verb.two_steps else context,
            world=self._facts.world,
            expect_new=lookup.behind,
            key=incoming.request.context.key,
            related=partial(self._related_changes, lookup.related) if lookup.related else None,
            basis=None if lookup.behind else known,
        )
        if lookup.behind:
            await self._fences.confirm(ref, applied, known, context)
        elif verb.two_steps:
            return await self._fences.conclude(ref, applied, context.operation)
        return applied

    async def _related_changes(
        self, related: Iterable[RelatedChanges], state: Any, events: Sequence[Event]
    ) -> Sequence[Change | Tip]:
        """The changes of other aggregates that belong to a command, made from their states at the end of the log."""
        await caught_up(self._store, self._facts.world)
        found = [one for changes in related for one in changes(state, events, self._facts)]
        return [one for index, one in enumerate(found) if one not in found[:index]]

    async def _earlier_result(self, incoming: Incoming) -> Applied[Any] | None:
        """The result if the same request was accepted before; it stays accepted, whatever was deleted since."""
        loaded: Loaded[Any] = await newest(self._store, self._facts.world, incoming.ref, incoming.route.kind.evolve)
        operation = incoming.request.context.operation
        known: AcceptedRequest | None = loaded.state.operations.get(operation) if loaded.state else None
        if known is None:
            return None
        if incoming.fingerprint is None or not incoming.fingerprint.matches(known.fingerprint):
            raise KeyReused(f"for a different {known.verb} request")
        return Applied(loaded.state, loaded.tip, ())

    async def _reply(self, incoming: Incoming, applied: Applied[Any]) -> CommandReply[Operation, Any]:
        """The reply: the record of the operation, and the state of the resource."""
        found: Record | None = None
        operation = incoming.request.context.operation
        if operation is not None and incoming.route.operates:
            found = record(operation, applied.decoded)
            if found is None:  # accepted before, or in two steps
                found = recorded_in(await self._store.history(incoming.ref, fresh=True), operation)
        return CommandReply(
            position=applied.tip.position,
            version=applied.tip.version,
            replayed=not applied.events,
            operation=OperationReply(found.operation, found.steps) if found else None,
            state=applied.state,
        )

    async def _prepare(self, incoming: Incoming) -> tuple[Args, Basis]:
        """The arguments, completed by lookups, and the tips of the aggregates to which they refer.

        A refusal counts only once the world has reached the end of the log.
        """
        route, project, world = incoming.route, incoming.project, self._facts.world
        command = route.command
        args: Args = {k: v for k, v in incoming.request.args.items() if v is not None}
        if route.operates:
            args["operation"] = incoming.request.context.operation
            args["fingerprint"] = incoming.fingerprint and incoming.fingerprint.stored
        if route.signs:
            args["created_by"] = incoming.context.actor
        if route.prepare is None:
            return args, {}
        if not route.lookup.behind:  # counts (VMs of a project, users of an image) have to be current
            await caught_up(self._store, world)
        known = basis(command, args, project, world)
        world.newer.check(known)
        try:
            return await route.prepare(dict(args), project, self._facts), known
        except Rejected:
            await caught_up(self._store, world)
            known = basis(command, args, project, world)
            world.newer.check(known)
            return await route.prepare(dict(args), project, self._facts), known


def event_context(caller: Caller, credential: str | None) -> Context:
    """The part of events about the caller. `credential`: the form of its credential for events."""
    return Context(
        actor=caller.actor,
        credential=credential,
        request=caller.request,
        operation=caller.operation,
        causation=caller.causation,
        traceparent=caller.traceparent,
    )


def bound_log(msg: Msg, request: CommandRequest | None) -> logs.Logger:
    """The logger, with the subject and the caller of a command as fields."""
    _, _, project, kind, verb = msg.subject.split(".")
    caller = request.context if request else None
    who = {"request": caller.request, "actor": caller.actor} if caller else {}
    return log.bind(kind=kind, verb=verb, project=project, **who)
