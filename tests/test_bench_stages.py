"""The stages of an operation: they add up to its time, whatever was heard of it."""

import argparse

import pytest

from bench import stages
from bench.stages import Heard, Stored, Times

CREATED = Heard(
    events=[Stored(1.002, 1.003, 7), Stored(1.004, 1.008, 8), Stored(1.015, 1.016, 10)],
    wanted=[0.5, 1.010, 1.5],
    reports=[Stored(1.012, 1.013), Stored(1.6, 1.7)],
)
TIMES = Times(sent=1.0, accepted=1.004, seen=1.020)
POSITIONS = [(7, 1.006), (9, 1.011), (10, 1.018)]


def test_each_stage_is_the_time_since_the_one_before() -> None:
    found = stages.stages(TIMES, CREATED, POSITIONS)
    assert {name: round(seconds * 1e3) for name, seconds in found.items()} == {
        "decided": 2,
        "appended": 1,
        "placement decided": 1,
        "placed": 4,
        "wanted": 2,
        "reported": 2,
        "report stored": 1,
        "result decided": 2,
        "result appended": 1,
        "in read model": 2,
        "seen": 2,
    }


@pytest.mark.parametrize(
    "heard",
    [
        CREATED,
        Heard(CREATED.events, [], []),
        Heard(CREATED.events[:1], CREATED.wanted, CREATED.reports),
        Heard([CREATED.events[0], CREATED.events[2]], CREATED.wanted, CREATED.reports),
    ],
)
@pytest.mark.parametrize("positions", [POSITIONS, [], [(10, 2.0)]])
def test_what_was_not_heard_counts_to_the_next_stage(heard: Heard, positions: list[tuple[int, float]]) -> None:
    found = stages.stages(TIMES, heard, positions)
    assert sum(found.values()) == pytest.approx(TIMES.seen - TIMES.sent)
    assert min(found.values()) >= 0


def test_without_events_there_are_no_stages() -> None:
    assert stages.stages(TIMES, Heard(), POSITIONS) == {}


async def test_a_run_shows_all_stages_of_a_create() -> None:
    parser = argparse.ArgumentParser()
    stages.arguments(parser)
    found = await stages.measure(**vars(parser.parse_args(["--count", "2"])))
    assert found["vms"] == 2
    for verb in stages.VERBS:
        assert found[verb]["ms_max"] >= found[verb]["ms_p50"] > 0
    shown = found["create"]["stages_ms_p50"]
    assert {"decided", "appended", "placed", "wanted", "reported", "result appended"} <= shown.keys()
