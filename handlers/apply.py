"""Load, decide, append: the one way in which a command becomes events."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Generic, TypeVar

from domain.base import Command, Event, Rejected
from domain.idempotency import OperationKeyed
from domain.kinds import references
from eventstore.log.envelope import Context, Recorded, Ref
from eventstore.log.store import Change, Conflict, EventStore, Loaded, Tip, Unavailable
from handlers.keys import alone, claim, refuse_reuse
from handlers.world.references import refers_to
from handlers.world.world import World

S = TypeVar("S")
C = TypeVar("C", bound=Command)
ATTEMPTS = 8
#: Seconds that the world may take to come to the log's end.
PATIENCE = 5.0


Beside = Callable[[S | None, Sequence[Event]], Awaitable[Sequence[Change | Tip]]]


@dataclass(frozen=True, slots=True)
class Applied(Generic[S]):
    """What became of a command: the state after it, the tip, and the events it made (none for a repeat).

    `told`: the same events with what they say.
    """

    state: S | None
    tip: Tip
    events: Sequence[Recorded]
    told: Sequence[tuple[Recorded, Event]] = ()


async def apply(
    store: EventStore,
    ref: Ref,
    decide: Callable[[S | None, C], Sequence[Event]],
    evolve: Callable[[S | None, Event], S | None],
    command: C,
    context: Context,
    *,
    world: World | None = None,
    expect_new: bool = False,
    key: str | None = None,
    known: Loaded[S] | None = None,
    beside: Beside[S] | None = None,
    basis: Mapping[Ref, Tip] | None = None,
) -> Applied[S]:
    """Decide on the newest state and append; when somebody else was first, decide again.

    `world` saves the read of the history: the state it has is decided on. Where it is behind, an append is refused. A
    refusal, and that no event is due, count only once the world is as new as the log.
    `known` saves the read too: the state as somebody folded it lately; that no event is due is said of `known` itself.
    `beside` says what has to stand or fall with the events, on other aggregates, and which of them may not have moved
    on (a tip): it is asked anew at each attempt.
    `basis`: how far the aggregates were known that the command was found good by. Those that the events refer to anew
    are expected to stand there still, in the same append. Conflict is raised as soon as that may fail.
    `expect_new` saves the read where the aggregate should not exist yet, in this project or in any other.
    `key`: the id that follows from the caller's key, in a command that creates the aggregate. It is used up for this
    aggregate, in the same append. Raises Rejected as the rules say, and where the key was used for another one;
    Unavailable when the log does not answer, Conflict when others were first too often.
    """
    if expect_new:
        known = Loaded(None, Tip(ref))
    elif known is None and world is not None:
        known = world.held(ref)
    sure = expect_new or world is None or known is None
    loaded = known or await store.load(ref, evolve)
    unused = 0
    for attempt in range(ATTEMPTS):
        try:
            events = decide(loaded.state, in_order(command, loaded.tip))
        except Rejected:
            if sure:
                raise
            events = ()
        if not events:
            if sure:
                return Applied(loaded.state, loaded.tip, ())
            loaded, sure = await newest(store, world, ref, evolve), True
            continue
        states = [loaded.state]
        for event in events:
            states.append(evolve(states[-1], event))
        state = states[-1]
        checks = referred(loaded, state, basis) if basis is not None else []
        others = await beside(loaded.state, events) if beside else ()
        first = Change(loaded.tip, events, alone(ref.id) if expect_new else None)
        changes = [first, *(other for other in others if isinstance(other, Change))]
        if key is not None and key != ref.id:
            used = OperationKeyed(at=command.at, operation_id=context.operation or "", kind=ref.kind, resource=ref.id)
            changes.append(claim(key, used, ref.project, unused))
        unchanged = [*checks, *(other for other in others if isinstance(other, Tip))]
        try:
            stored = await store.append(changes, context, unchanged=unchanged)
        except Conflict:
            if key is not None:
                unused = await refuse_reuse(store, key, ref)
            if checks or attempt == ATTEMPTS - 1:
                raise
            loaded, sure = await newest(store, world, ref, evolve), True
            if expect_new and loaded.state is None:
                last = await store.unused(alone(ref.id))  # malformed messages do not take an id
                if last is None:
                    detail = f"the id {ref.id} is, or was, that of a {ref.kind} elsewhere: choose another, or give none"
                    raise Rejected(f"{ref.kind}_exists", detail, field="id") from None
                loaded = Loaded(None, replace(loaded.tip, position=last))
            continue
        recorded = [one for one in stored if one.subject == ref.subject]
        told = [*zip(recorded, events, strict=False), *((one, one.event) for one in recorded[len(events) :])]
        tip = loaded.tip
        for (one, event), after in zip(told, chain(states[1:], repeat(state)), strict=False):
            before, tip = tip, tip.after(one)
            if world is not None and one.event is event:
                world.foresee(one, before, Loaded(after, tip))
        return Applied(state, tip, recorded, told)
    raise AssertionError("the loop returns or raises")


async def newest(
    store: EventStore, world: World | None, ref: Ref, evolve: Callable[[S | None, Event], S | None]
) -> Loaded[S]:
    """The aggregate as it is at the end of the log. Raises Unavailable."""
    if world is not None:
        await caught_up(store, world)
        held = world.held(ref)
        if held is not None:
            return held
    return await store.load(ref, evolve, fresh=True)  # a replica that lags would lose again


async def caught_up(store: EventStore, world: World) -> None:
    """Wait until the world is as new as the log was at the time of the call. Raises Unavailable when it does not."""
    end = await store.last_position()
    try:
        async with asyncio.timeout(PATIENCE):
            await world.reached(end)
    except TimeoutError as error:
        raise Unavailable(f"this process knows the log up to {world.position} only; it ends at {end}") from error


def referred(loaded: Loaded[S], after: S | None, basis: Mapping[Ref, Tip]) -> list[Tip]:
    """The tips of what is referred to anew, which may not have changed since. Raises Conflict where one is unknown."""
    kind = loaded.tip.ref.kind
    new = [refers_to(reference) for reference in references(kind, after) - references(kind, loaded.state)]
    for ref in new:
        if ref not in basis:
            raise Conflict(loaded.tip.ref.subject)
    return [basis[ref] for ref in new]


def in_order(command: C, tip: Tip) -> C:
    """The command, not before what happened last: who decided on that may have had a clock ahead of this one."""
    if tip.time is None or command.at >= tip.time:
        return command
    return command.model_copy(update={"at": tip.time})


def now() -> datetime:
    """The clock of the write side."""
    return datetime.now(UTC)


def manager(name: str, *, cause: str | None = None, operation: str | None = None) -> Context:
    """The context of what a process manager does on its own."""
    return Context(actor=f"system:{name}", causation=cause, operation=operation)
