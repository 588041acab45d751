"""Load, decide, append: how every command becomes events."""

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
#: Maximum number of seconds to wait until the world has reached the end of the log.
PATIENCE = 5.0


RelatedChanges = Callable[[S | None, Sequence[Event]], Awaitable[Sequence[Change | Tip]]]
"""Returns the changes of other aggregates that are stored in the same append, and the tips that must not change."""


@dataclass(frozen=True, slots=True)
class Applied(Generic[S]):
    """The result of a command: the state after it, the tip, and its events (none for a repeat).

    `decoded`: the same events, each with its typed form.
    """

    state: S | None
    tip: Tip
    events: Sequence[Recorded]
    decoded: Sequence[tuple[Recorded, Event]] = ()


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
    related: RelatedChanges[S] | None = None,
    basis: Mapping[Ref, Tip] | None = None,
) -> Applied[S]:
    """Decide on the latest state and append. If another append was first, decide again.

    - `world`: use its state instead of reading the history. If that is outdated, the append is refused. A refusal by
      the rules, and a decision without events, count only once the world has reached the end of the log.
    - `known`: use this state instead of reading the history. A decision on it without events counts immediately.
    - `expect_new`: do not read the history, because the aggregate should not exist, in this project or any other.
    - `related`: called at each attempt, for changes of other aggregates in the same append.
    - `basis`: the tips of the aggregates that the command was checked against. Those to which the new state refers, and
      the old one did not, must not have changed, in the same append. Otherwise Conflict is raised immediately.
    - `key`: the id that is derived from the caller's key, if the command creates the aggregate. The same append records
      that the key is used for this aggregate.

    Raises Rejected, also if the key was used for another aggregate; Unavailable if the log does not answer; Conflict
    after too many attempts; NewerVersion if this version does not know the state.
    """
    if expect_new:
        known = Loaded(None, Tip(ref))
    elif known is None and world is not None:
        known = world.held(ref)
    current = expect_new or world is None or known is None  # whether the state is as new as the log
    loaded = known or await store.load(ref, evolve)
    unused = 0
    for attempt in range(ATTEMPTS):
        if world is not None:
            world.newer.check((ref,))
        try:
            events = decide(loaded.state, not_before(command, loaded.tip))
        except Rejected:
            if current:
                raise
            events = ()
        if not events:
            if current:
                return Applied(loaded.state, loaded.tip, ())
            loaded, current = await newest(store, world, ref, evolve), True
            continue
        states = [loaded.state]
        for event in events:
            states.append(evolve(states[-1], event))
        state = states[-1]
        checks = new_references(loaded, state, basis) if basis is not None else []
        others = await related(loaded.state, events) if related else ()
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
            loaded, current = await newest(store, world, ref, evolve), True
            if expect_new and loaded.state is None:
                last = await store.unused(alone(ref.id))  # malformed messages do not use up an id
                if last is None:
                    detail = f"the id {ref.id} is, or was, another resource's; choose another id, or give none"
                    raise Rejected(f"{ref.kind}_exists", detail, field="id") from None
                loaded = Loaded(None, replace(loaded.tip, position=last))
            continue
        recorded = [one for one in stored if one.subject == ref.subject]
        decoded = [*zip(recorded, events, strict=False), *((one, one.event) for one in recorded[len(events) :])]
        tip = loaded.tip
        for (one, event), after in zip(decoded, chain(states[1:], repeat(state)), strict=False):
            before, tip = tip, tip.after(one)
            if world is not None and one.event is event:
                world.foresee(one, before, Loaded(after, tip))
        return Applied(state, tip, recorded, decoded)
    raise AssertionError("the loop returns or raises")


async def newest(
    store: EventStore, world: World | None, ref: Ref, evolve: Callable[[S | None, Event], S | None]
) -> Loaded[S]:
    """The aggregate at the end of the log. Raises Unavailable."""
    if world is not None:
        await caught_up(store, world)
        held = world.held(ref)
        if held is not None:
            return held
    return await store.load(ref, evolve, fresh=True)  # a replica that lags would return an outdated state


async def caught_up(store: EventStore, world: World) -> None:
    """Wait until the world has reached the end that the log has now. Raises Unavailable after PATIENCE seconds."""
    end = await store.last_position()
    try:
        async with asyncio.timeout(PATIENCE):
            await world.reached(end)
    except TimeoutError as error:
        raise Unavailable(f"this process has read the log up to {world.position}, and it ends at {end}") from error


def new_references(loaded: Loaded[S], after: S | None, basis: Mapping[Ref, Tip]) -> list[Tip]:
    """The tips of the aggregates to which only the new state refers. Raises Conflict if one is not in `basis`."""
    kind = loaded.tip.ref.kind
    new = [refers_to(reference) for reference in references(kind, after) - references(kind, loaded.state)]
    for ref in new:
        if ref not in basis:
            raise Conflict(loaded.tip.ref.subject)
    return [basis[ref] for ref in new]


def not_before(command: C, tip: Tip) -> C:
    """The command with a time that is not before the last event's, which a process with another clock may have made."""
    if tip.time is None or command.at >= tip.time:
        return command
    return command.model_copy(update={"at": tip.time})


def now() -> datetime:
    """The present time, by this host's clock."""
    return datetime.now(UTC)


def manager(name: str, *, cause: str | None = None, operation: str | None = None) -> Context:
    """The context of the events that a process manager appends."""
    return Context(actor=f"system:{name}", causation=cause, operation=operation)
