"""When the read side gives way."""

from datetime import UTC, datetime, timedelta

from eventstore.envelope import Recorded
from projections.runner import FRESH, LINGER, MANY, REST, pause

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def batch(size: int, age: float) -> list[Recorded]:
    return [Recorded(1, "nebula.events.p.vm.x", {}, b"", NOW - timedelta(seconds=age))] * size


def test_a_quiet_log_is_read_at_once() -> None:
    assert pause(batch(MANY - 1, 0), 1.0, NOW) == 0


def test_while_much_happens_reads_give_way() -> None:
    assert pause(batch(MANY, 0), 0.001, NOW) == LINGER
    assert pause(batch(MANY, 0), 1.0, NOW) == REST


def test_what_is_behind_catches_up_at_full_speed() -> None:
    assert pause(batch(MANY, FRESH + 1), 1.0, NOW) == 0
