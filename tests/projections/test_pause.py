"""When the read side gives way."""

from datetime import UTC, datetime, timedelta

from eventstore.log.envelope import Recorded
from projections.pause import FRESH, LATE, LINGER, MANY, REST, pause

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def batch(size: int, age: float) -> list[Recorded]:
    return [Recorded(1, "nebula.events.p.vm.x", {}, b"", NOW - timedelta(seconds=age))] * size


def test_after_a_few_events_it_pauses_no_longer_than_it_worked() -> None:
    assert pause(batch(MANY - 1, 0), 0.001, NOW) == 0.001
    assert pause(batch(1, 0), 1.0, NOW) == LINGER


def test_while_much_happens_reads_give_way() -> None:
    assert pause(batch(MANY, 0), 0.001, NOW) == LINGER
    assert pause(batch(MANY, 0), 1.0, NOW) == REST


def test_the_further_behind_the_shorter_the_rest() -> None:
    assert pause(batch(MANY, FRESH), 1.0, NOW) == REST
    rests = [pause(batch(MANY, FRESH + (LATE - FRESH) * part / 10), 1.0, NOW) for part in range(11)]
    assert rests == sorted(set(rests), reverse=True)
    assert rests[5] == REST / 2


def test_what_is_far_behind_catches_up_at_full_speed() -> None:
    assert pause(batch(1, LATE), 1.0, NOW) == 0
    assert pause(batch(MANY, LATE), 1.0, NOW) == 0
    assert pause(batch(MANY, 3600), 1.0, NOW) == 0
