"""`nebula events`, `feed` and `replay`: the log, in order, without gaps, and unaltered."""

import json

import pytest

from tests.cli.conftest import Nebula
from tests.cli.fake import Document, Platform


def lived(platform: Platform, name: str = "web-1") -> Document:
    """A VM with six events behind it."""
    vm = platform.add_vm(name, "requested")
    platform.record(vm, "VmRequested", name=name, fingerprint="f")
    for kind, phase in (
        ("VmScheduled", "scheduled"),
        ("VmStarted", "running"),
        ("VmGuestReady", "running"),
        ("VmStopRequested", "running"),
        ("VmStopped", "stopped"),
    ):
        vm["phase"] = phase
        platform.record(vm, kind, node="host-1", detail="wegen Ümlauten")
    return vm


def positions(lines: str) -> list[int]:
    return [json.loads(line)["position"] for line in lines.splitlines()]


def test_events(nebula: Nebula, platform: Platform) -> None:
    lived(platform)
    assert positions(nebula("events", "-o", "json").out) == [1, 2, 3, 4, 5, 6]
    assert positions(nebula("events", "-o", "json", "--after", "4").out) == [5, 6]
    assert positions(nebula("events", "-o", "json", "--limit", "2").out) == [1, 2]
    table = nebula("events", "--vm", "web-1").out.splitlines()
    assert table[0].startswith("POSITION")
    assert table[3].split()[0] == "3"
    assert "nebula.vm.VmStarted" in table[3]


def test_following_shows_what_happens_meanwhile(nebula: Nebula, platform: Platform) -> None:
    platform.add_vm("web-1")
    lived(platform, "web-2")
    assert positions(nebula("events", "--follow", "--limit", "7", "-o", "json").out) == [1, 2, 3, 4, 5, 6, 7]


def test_the_feed_resumes_where_it_was(nebula: Nebula, platform: Platform) -> None:
    lived(platform)
    platform.feed_breaks = [2, 5]
    ran = nebula("feed", "--after", "1", "--limit", "5", "-o", "json")
    assert ran.status == 0
    assert positions(ran.out) == [2, 3, 4, 5, 6]
    assert "resuming behind position 2" in ran.err
    assert "resuming behind position 5" in ran.err


def test_the_feed_ends_on_a_gap(nebula: Nebula, platform: Platform) -> None:
    lived(platform)
    platform.feed_skips = {4}
    ran = nebula("feed", "-o", "json")
    assert ran.status == 1
    assert positions(ran.out) == [1, 2, 3]
    assert "the feed has a gap: position 5 follows 4, not 3" in ran.err


def test_the_feed_gives_up_on_a_platform_that_never_answered(nebula: Nebula, platform: Platform) -> None:
    platform.faults.extend(["drop"] * 9)
    assert nebula("feed").status == 3


def test_replay_tells_the_story_and_proves_it(nebula: Nebula, platform: Platform) -> None:
    vm = lived(platform)
    lived(platform, "other")
    ran = nebula("replay", "vm", vm["id"])
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines[1:7]] == ["1", "2", "3", "4", "5", "6"]
    assert "requested" in lines[1]
    assert "by ada" in lines[1]
    assert "+1.00 s" in lines[2]
    assert "running" not in lines[4]
    assert lines[-1] == "chain: 6 events from the first on; every link and digest holds"
    assert len(nebula("replay", "vm", "other", "-o", "json").json["events"]) == 6


def test_replay_notices_an_altered_event(nebula: Nebula, platform: Platform) -> None:
    vm = lived(platform)
    platform.events[2]["data"] = {"node": "host-2"}
    ran = nebula("replay", "vm", vm["id"])
    assert ran.status == 1
    assert "position 3 was altered" in ran.err


def test_replay_notices_a_missing_event(nebula: Nebula, platform: Platform) -> None:
    vm = lived(platform)
    del platform.events[2]
    ran = nebula("replay", "vm", vm["id"])
    assert ran.status == 1
    assert "position 4 is event 4 of this VM, not 3" in ran.err
    assert "but the event before it is" in ran.err


@pytest.mark.parametrize(
    "said", [{}, {"aggregateversion": "x", "time": "never"}, {"aggregateversion": "3", "type": "nebula.vm.VmStarted"}]
)
def test_replay_shows_what_is_no_event_in_words(nebula: Nebula, platform: Platform, said: dict[str, str]) -> None:
    vm = lived(platform)
    stray = {"specversion": "1.0", "id": "position:4", "type": "", "source": "", "digest": "d", **said}
    stray |= {"position": 7, "subject": platform.events[0]["subject"], "data_base64": "aGk="}
    platform.events.append(stray)
    ran = nebula("replay", "vm", vm["id"])
    assert ran.status == 0
    assert "(malformed)" in ran.out
    assert "no event: 2 bytes" in ran.out
    assert "chain: 6 events from the first on" in ran.out
    assert "stand at 7" in ran.err
