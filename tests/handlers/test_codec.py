"""States as bytes: they come back equal, whatever kind they are of."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import pytest
from rpds import HashTrieMap

from domain.base import Resources
from domain.kinds import KINDS
from domain.vm import Phase
from handlers.world.codec import CODEC, CannotPack, Codec, classes
from tests.history.stories import EVOLVE
from tests.history.test_history import STORIES, decoded, lines


def types_of(value: Any) -> Any:
    """The types in a value, at any depth: `1 == 1.0 == True` is not enough."""
    if isinstance(value, Enum | str | int | float) or value is None:
        return type(value)
    if isinstance(value, Mapping):
        return type(value), {key: types_of(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value), [types_of(each) for each in value]
    return type(value), types_of(getattr(value, "__dict__", {}))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_each_state_of_each_history_comes_back(path: Any) -> None:
    evolve, state = EVOLVE[path.name.split("-")[0]], None
    for headers, body in lines(path):
        state = evolve(state, decoded(headers, body))
        packed = CODEC.pack(state)
        again = CODEC.unpack(packed)
        assert again == state
        assert types_of(again) == types_of(state)
        assert CODEC.pack(again) == packed
        assert vars(again).keys() == vars(state).keys() if state is not None else again is None


def test_there_are_histories_of_all_kinds() -> None:
    assert {path.name.split("-")[0] for path in STORIES} >= KINDS.keys()


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        2**80,
        -1.5,
        "",
        "ü\ud800\x00",
        (),
        [],
        {},
        {"a": (1, [None])},
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 1, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=-3, seconds=7))),
        timedelta(days=-3, microseconds=1),
        frozenset({"a", "b"}),
        HashTrieMap({"b": Resources(vcpus=1), "a": Resources()}),
        Phase.RUNNING,
    ],
)
def test_values_come_back(value: Any) -> None:
    again = CODEC.unpack(CODEC.pack(value))
    assert again == value and type(again) is type(value)


def test_a_class_that_no_annotation_names_comes_back_too() -> None:
    unknown = Codec([each for each in classes() if each is not Resources])
    assert unknown.unpack(unknown.pack(Resources(vcpus=2))) == Resources(vcpus=2)
    assert Codec(classes()[:0]).unpack(unknown.pack(Resources(vcpus=2))) == Resources(vcpus=2), "in another process"


@pytest.mark.parametrize("value", [object(), {1, 2}, b"", 1j, type, lambda: None])
def test_what_is_no_value_of_a_state_is_refused(value: Any) -> None:
    with pytest.raises(CannotPack):
        CODEC.pack(value)


@pytest.mark.parametrize(
    "name", ["os:system", "domain.base:Event.__init__", "domain.base:Any", "builtins:object", "x", "domain.base:"]
)
def test_no_other_class_is_made(name: str) -> None:
    with pytest.raises(CannotPack):
        CODEC.decode([name])
