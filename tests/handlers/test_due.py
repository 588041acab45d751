"""Times that come, whatever else happens to them."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

from hypothesis import given, strategies as st

from handlers.managers.deadlines import overdue
from handlers.world.due import Due
from handlers.world.vms import next_time
from handlers.world.world import World
from tests.domain.lives import SCHEDULED, given as lived

START = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def test_what_is_due_stays_so_until_its_time_is_set_anew() -> None:
    due = Due()
    due.set("a", at(5))
    due.set("b", at(3))
    assert due.by(at(2)) == []
    assert due.by(at(5)) == ["b", "a"]
    assert due.by(at(6)) == ["b", "a"]
    due.set("b", at(10))
    due.set("a", None)
    assert due.by(at(9)) == []
    assert due.by(at(10)) == ["b"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), st.integers(0, 50)), st.integers(0, 50))))
def test_it_says_what_a_look_at_everything_would(steps: list[tuple[str, int | None, int]]) -> None:
    due, plain = Due(), dict[str, int]()
    now = 0
    for id_, time, step in steps:
        due.set(id_, None if time is None else at(time))
        plain.pop(id_, None)
        if time is not None:
            plain[id_] = time
        now = max(now, step)
        assert set(due.by(at(now))) == {each for each, when in plain.items() if when <= now}


def test_times_that_change_for_ever_take_no_room() -> None:
    due = Due()
    for step in range(10_000):
        due.set("a", at(step))
    assert len(due._queue) < 100
    assert due.by(at(9_999)) == ["a"]


def test_an_operation_times_out_but_not_that_of_a_void_vm() -> None:
    found = lived(SCHEDULED).state
    assert found is not None
    times = Due()
    times.set(found.id, next_time(found))
    void: dict[str, object] = {}
    told = SimpleNamespace(due=times, vm=lambda _: SimpleNamespace(state=found), references=SimpleNamespace(void=void))
    world, late = cast(World, told), START + timedelta(days=3650)
    assert overdue(world, START - timedelta(days=3650)) == []
    assert [each.vm for each in overdue(world, late)] == [found.id]
    void[found.id] = "its project is gone"
    assert overdue(world, late) == []
