"""Load, decide, append: the one way in which a command becomes events."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from domain.base import Command, Event, Rejected
from domain.references import references
from eventstore.envelope import Context, Recorded, Ref
from eventstore.store import Change, Conflict, EventStore, Loaded, Tip
from handlers.references import refers_to
from runtime import subjects

S = TypeVar("S")
ATTEMPTS = 8


Beside = Callable[[S | None, Sequence[Event]], Awaitable[Sequence[Change | Tip]]]


@dataclass(frozen=True, slots=True)
class Applied(Generic[S]):
    """What became of a command: the state after it, the tip, and the events it made (none for a repeat)."""

    state: S | None
    tip: Tip
    events: Sequence[Recorded]


async def apply(
    store: EventStore,
    ref: Ref,
    decide: Callable[[S | None, Any], Sequence[Event]],
    evolve: Callable[[S | None, Event], S | None],
    command: Command,
    context: Context,
    *,
    expect_new: bool = False,
    known: Loaded[S] | None = None,
    beside: Beside[S] | None = None,
    basis: Mapping[Ref, Tip] | None = None,
) -> Applied[S]:
    """Decide on the newest state and append; when somebody else was first, decide again.

    `known` saves the read: the state as somebody folded it lately. Where it is behind, an append is refused, and the
    newest is read after all; that no event is due is said of `known` itself.
    `beside` says what has to stand or fall with the events, on other aggregates, and which of them may not have moved
    on (a tip): it is asked anew at each attempt.
    `basis`: how far the aggregates were known that the command was found good by. Those that the events refer to anew
    are expected to stand there still, in the same append. Conflict is raised as soon as that may fail.
    `expect_new` saves the read where the aggregate should not exist yet, in this project or in any other. Raises
    Rejected as the rules say, Unavailable when the log does not answer, Conflict when others were first too often.
    """
    known = Loaded(None, Tip(ref)) if expect_new else known
    loaded = known or await store.load(ref, evolve)
    alone = subjects.events(kind=ref.kind, id_=ref.id) if expect_new else None
    for attempt in range(ATTEMPTS):
        events = decide(loaded.state, command)
        if not events:
            return Applied(loaded.state, loaded.tip, ())
        state = loaded.state
        for event in events:
            state = evolve(state, event)
        checks = referred(loaded, state, basis) if basis is not None else []
        others = await beside(loaded.state, events) if beside else ()
        changes = [Change(loaded.tip, events, alone), *(other for other in others if isinstance(other, Change))]
        unchanged = [*checks, *(other for other in others if isinstance(other, Tip))]
        try:
            stored = await store.append(changes, context, unchanged=unchanged)
        except Conflict:
            if checks or attempt == ATTEMPTS - 1:
                raise
            loaded = await store.load(ref, evolve, fresh=True)  # a replica that lags would lose again
            if alone is not None and loaded.state is None:
                last = await store.unused(alone)  # malformed messages do not take an id
                if last is None:
                    raise Rejected(f"{ref.kind}_exists", f"the id {ref.id} is taken", field="id") from None
                loaded = Loaded(None, replace(loaded.tip, position=last))
            continue
        recorded = [one for one in stored if one.subject == ref.subject]
        return Applied(state, loaded.tip.after(recorded[-1]), recorded)
    raise AssertionError("the loop returns or raises")


def referred(loaded: Loaded[S], after: S | None, basis: Mapping[Ref, Tip]) -> list[Tip]:
    """The tips of what is referred to anew, which may not have changed since. Raises Conflict where one is unknown."""
    new = [refers_to(reference) for reference in references(after) - references(loaded.state)]
    for ref in new:
        if ref not in basis:
            raise Conflict(loaded.tip.ref.subject)
    return [basis[ref] for ref in new]


def now() -> datetime:
    """The clock of the write side."""
    return datetime.now(UTC)


def manager(name: str, *, cause: str | None = None, operation: str | None = None) -> Context:
    """The context of what a process manager does on its own."""
    return Context(actor=f"system:{name}", causation=cause, operation=operation)
