"""How far something is, told seldom."""

from runtime.tasks.gauge import Gauge, share

MIB = 1024**2


def told(seconds: float, total: int | None, step: int, whole: int) -> list[int]:
    """What is told of `whole` bytes that come in steps, each of which takes some seconds."""
    now = 0.0
    heard: list[int] = []
    gauge = Gauge(lambda done, _: heard.append(done), clock=lambda: now)
    for done in range(0, whole + 1, step):
        gauge(done, total)
        now += seconds
    return heard


def test_what_is_quick_is_not_worth_a_word() -> None:
    assert told(0.01, 400 * MIB, MIB, 400 * MIB) == []


def test_ten_times_at_most_however_long_it_takes() -> None:
    heard = told(60, 1000 * MIB, MIB, 1000 * MIB)
    assert heard == [n * 100 * MIB for n in range(1, 10)]


def test_every_five_seconds_at_most() -> None:
    assert len(told(0.02, 1000 * MIB, MIB, 1000 * MIB)) == 3


def test_of_unknown_length() -> None:
    assert told(1, None, MIB, 1000 * MIB) == [256 * MIB, 512 * MIB, 768 * MIB]


def test_begun_anew() -> None:
    now = 0.0
    heard: list[int] = []
    gauge = Gauge(lambda done, _: heard.append(done), clock=lambda: now)
    for done in (0, 50, 0, 10):
        now += 10
        gauge(done, 100)
    assert heard == [50, 10]


def test_in_words() -> None:
    assert share(50 * MIB, 186 * MIB) == "26 % of 186 MiB"
    assert share(3 * MIB, None) == "3 MiB"
    assert share(0, 20 * 1024 * MIB) == "0 % of 20.0 GiB"
