"""given / when / then: what has happened, what is asked, what follows.

    vm_story(*REQUESTED).when(StartVm(…)).then_rejected("wrong_phase")

Every event goes through its JSON on the way, as it does in the log.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import pytest

from domain.base import Category, Event, Rejected, event_type

S = TypeVar("S")

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float = 0) -> datetime:
    return NOW + timedelta(seconds=seconds)


def uid(n: int) -> str:
    """A UUID that is easy to tell from others in a failure."""
    return f"00000000-0000-4000-8000-{n:012d}"


def stored(event: Event) -> Event:
    """The event as the log gives it back."""
    kind = event_type(event.TOPIC)
    assert kind is type(event)
    return kind.model_validate_json(event.model_dump_json(exclude_none=True))


def fold(evolve: Callable[[S | None, Event], S | None], events: Sequence[Event]) -> S | None:
    state: S | None = None
    for event in events:
        state = evolve(state, stored(event))
    return state


@dataclass
class Story(Generic[S]):
    """What has happened so far, and the rules it is judged by."""

    decide: Callable[[S | None, Any], Sequence[Event]]
    evolve: Callable[[S | None, Event], S | None]
    state: S | None

    def when(self, command: Any) -> "Outcome[S]":
        try:
            return Outcome(self, list(self.decide(self.state, command)), None)
        except Rejected as error:
            return Outcome(self, [], error)


@dataclass
class Outcome(Generic[S]):
    """What a command led to."""

    story: Story[S]
    events: list[Event]
    error: Rejected | None

    def then(self, *types: type[Event], **fields: Any) -> "Outcome[S]":
        """Events of exactly these types follow; the fields are those of the first."""
        assert self.error is None, self.error
        assert [type(event) for event in self.events] == list(types)
        for name, value in fields.items():
            assert getattr(self.events[0], name) == value, name
        return self

    def then_nothing(self) -> None:
        assert self.error is None, self.error
        assert self.events == []

    def then_rejected(self, code: str, category: Category = Category.CONFLICT) -> Rejected:
        assert self.error is not None, f"accepted: {self.events}"
        assert (self.error.code, self.error.category) == (code, category)
        assert self.error.detail
        return self.error

    @property
    def after(self) -> S:
        """The state once it has happened."""
        assert self.error is None, self.error
        state = self.story.state
        for event in self.events:
            state = self.story.evolve(state, stored(event))
        assert state is not None
        return state

    def and_when(self, command: Any) -> "Outcome[S]":
        return Story(self.story.decide, self.story.evolve, self.after).when(command)


def refused(action: Callable[[], object]) -> Rejected:
    with pytest.raises(Rejected) as raised:
        action()
    return raised.value
