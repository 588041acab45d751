"""`nebula events`, `feed` and `replay`: the log, in order, without gaps, and unaltered."""

import json
from typing import Any

import pytest

from cli.commands.replay import what
from tests.cli.conftest import Nebula
from tests.cli.fake import Document, Platform


def lived(platform: Platform, name: str = "web-1") -> Document:
    """A VM with six events behind it."""
    vm = platform.add_vm(name, "requested")
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
    assert positions(nebula("events", "--follow", "--limit", "8", "-o", "json").out) == [*range(1, 9)]


def test_the_feed_resumes_where_it_was(nebula: Nebula, platform: Platform) -> None:
    lived(platform)
    platform.faults.breaks = [2, 5]
    ran = nebula("feed", "--after", "1", "--limit", "5", "-o", "json")
    assert ran.status == 0
    assert positions(ran.out) == [2, 3, 4, 5, 6]
    assert "resuming after position 2" in ran.err
    assert "resuming after position 5" in ran.err


@pytest.mark.parametrize("losses", [1, 3])
def test_a_feed_from_now_that_is_lost_before_its_first_event_misses_nothing(
    nebula: Nebula, platform: Platform, losses: int
) -> None:
    """What happens while the connection is away comes with the next one, from the position that was now at first."""
    vm = lived(platform)
    platform.faults.first.extend([lambda: platform.record(vm, "VmStarted")] * losses)
    platform.record(vm, "VmChanged")
    ran = nebula("feed", "--from-now", "--limit", str(losses), "-o", "json")
    assert (ran.status, positions(ran.out)) == (0, [*range(8, 8 + losses)])
    assert platform.resumed == [None, *["7"] * losses]
    assert ran.err.count("resuming after position 7") == losses


def test_a_feed_from_now_that_is_lost_on_an_empty_log(nebula: Nebula, platform: Platform) -> None:
    platform.faults.first.append(lambda: platform.add_vm("web-1"))
    ran = nebula("feed", "--from-now", "--limit", "1", "-o", "json")
    assert (ran.status, positions(ran.out), platform.resumed) == (0, [1], [None, "0"])


def test_a_feed_from_now_with_a_gap_after_a_lost_connection_ends(nebula: Nebula, platform: Platform) -> None:
    vm = lived(platform)

    def meanwhile() -> None:
        for _ in range(2):
            platform.record(vm, "VmStarted")
        platform.faults.skips = {7}

    platform.faults.first.append(meanwhile)
    ran = nebula("feed", "--from-now", "-o", "json")
    assert (ran.status, ran.out) == (1, "")
    assert "the feed has a gap: position 8 follows 7, not 6" in ran.err


def test_messages_that_are_no_events_are_lines_as_well(nebula: Nebula, platform: Platform) -> None:
    vm = platform.add_vm("web-1")
    strange: tuple[Document, ...] = (
        {"type": "", "time": ...},
        {"time": "yesterday"},
        {"time": "0001-01-01T00:00:00+14:00"},
        {"subject": "nebula.events.a.b"},
        {"type": "\x1b[2J\n\u202e", "actor": "\x9b1m\r\n"},
    )
    for changed in strange:
        platform.record(vm, "VmStarted")
        event = {**platform.events[-1], **changed}
        platform.events[-1] = {name: value for name, value in event.items() if value is not ...}
    lines = nebula("events").out.splitlines()
    assert [line.split()[0] for line in lines] == ["POSITION", "1", "2", "3", "4", "5", "6"]
    assert "(malformed)" in lines[2]
    assert all("-" in line for line in lines[2:5])
    assert "nebula.events.a.b" in lines[5]
    assert "\\x1b[2J\\n\\u202e" in lines[6]
    assert lines == nebula("feed", "--limit", "6").out.splitlines()


def test_the_feed_ends_on_a_gap(nebula: Nebula, platform: Platform) -> None:
    lived(platform)
    platform.faults.skips = {4}
    ran = nebula("feed", "-o", "json")
    assert ran.status == 1
    assert positions(ran.out) == [1, 2, 3]
    assert "the feed has a gap: position 5 follows 4, not 3" in ran.err


def test_the_feed_gives_up_on_a_platform_that_never_answered(nebula: Nebula, platform: Platform) -> None:
    platform.faults.next.extend(["drop"] * 9)
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
    "said",
    [
        {},
        {"aggregateversion": "x", "time": "never"},
        {"aggregateversion": "3", "type": "nebula.vm.VmStarted"},
        {"data": {}, "type": "nebula.vm.Later"},
    ],
)
def test_replay_shows_what_is_no_event_in_words(nebula: Nebula, platform: Platform, said: Document) -> None:
    vm = lived(platform)
    stray: Document = {"specversion": "1.0", "id": "position:4", "type": "", "source": "", "digest": "d" * 64, **said}
    stray |= {"position": 7, "subject": platform.events[0]["subject"]}
    stray |= {} if "data" in said else {"data_base64": "aGk="}
    platform.events.append(stray)
    platform.described = "aggregateversion" not in said  # a gateway shows none where it is no event
    ran = nebula("replay", "vm", vm["id"])
    assert ran.status == 0
    assert "(malformed)" in ran.out
    assert f"not an event: {'JSON' if 'data' in said else '2 bytes'} that" in ran.out
    assert "chain: 6 events from the first on" in ran.out
    assert "positions 7 are ignored" in ran.err


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("VmChanged", {"name": "db-1", "tags": ["blue"]}, "by ada, name db-1, tags blue"),
        ("VmChanged", {"tags": [], "labels": {}}, "by ada, tags none, labels none"),
        ("VmChanged", {"labels": {"team": "red", "new": ""}}, "by ada, labels team=red,new"),
        ("VmChanged", {"protected": False, "restart_policy": "always"}, "by ada, protected no, restart policy always"),
        ("VmChanged", {"watchdog": "reset"}, "by ada, watchdog reset"),
        ("VmChanged", {"description": ""}, "by ada, description none"),
        ("VmChanged", {"description": "x" * 99}, f"by ada, description {'x' * 59}…"),
        ("VmTagged", {"tags": []}, "by ada, tags none"),
        ("VmResized", {"spec": {"vcpus": 2, "memory_mib": 512, "disk_gib": 4}}, "by ada, 2 vcpus, 512 MiB, 4 GiB"),
    ],
)
def test_replay_says_what_a_change_changed(kind: str, data: dict[str, Any], said: str) -> None:
    assert what({"fingerprint": "f", **data}, "ada", kind) == said


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (
            "VmStopped",
            {"node": "n1", "cause": "requested", "forced": True},
            "node n1, cause requested, powered off by force",
        ),
        ("VmStopped", {"node": "n1", "cause": "guest", "forced": False}, "node n1, cause guest"),
        ("VmForgotten", {"fingerprint": "f", "node": "n1", "reason": "it burnt"}, "by ada, node n1, reason it burnt"),
        ("VmRetryRequested", {"fingerprint": "f", "again": "delete"}, "by ada, again delete"),
        ("VmOperationTimedOut", {"verb": "start"}, "verb start"),
    ],
)
def test_replay_says_what_happened(kind: str, data: dict[str, Any], said: str) -> None:
    assert what(data, "ada", kind) == said


def test_replay_says_who_was_connected_to_a_console() -> None:
    assert what({"session": "0", "console": "serial", "force": False}, "ada") == "by ada, console serial"
    ended = {"session": "0", "console": "vnc", "seconds": 2.5, "why": "the client has left"}
    assert what(ended, "ada") == "by ada, console vnc, seconds 2.5, why the client has left"
