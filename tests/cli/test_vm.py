"""`nebula vm`: names, waiting, tables and JSON."""

import base64
from pathlib import Path

import pytest

from cli.client import output
from cli.client.output import size
from cli.commands.usage import bars
from runtime.tasks import gauge
from tests.cli.conftest import Nebula
from tests.cli.fake import Platform, why


def test_create_waits_until_it_runs_and_prints_the_vm(nebula: Nebula) -> None:
    ran = nebula("vm", "create", "web-1", "--image", "debian-12", "--memory", "1024", "--tag", "blue")
    assert ran.status == 0
    heading, row = ran.out.splitlines()
    assert heading.split()[:3] == ["NAME", "ID", "PHASE"]
    assert row.startswith("web-1")
    assert "running" in row
    assert "1024 MiB" in row
    assert "blue" in row
    assert "scheduled, preparing disk" in ran.err


def test_create_can_wait_for_the_guest(nebula: Nebula) -> None:
    ran = nebula("vm", "create", "web-1", "--image", "debian-12", "--wait", "ready", "-o", "json")
    assert ran.json["vm"]["ready"] is True
    assert ran.json["operation"]["status"] == "succeeded"


@pytest.mark.parametrize("option", [("--wait", "no"), ("--no-wait",)])
def test_create_need_not_wait(nebula: Nebula, platform: Platform, option: tuple[str, ...]) -> None:
    ran = nebula("vm", "create", "web-1", "--image", "debian-12", "-o", "json", *option)
    assert ran.json["vm"]["phase"] == "requested"
    assert [method for method, *_ in platform.requests] == ["POST"]


def test_a_dry_run_creates_nothing(nebula: Nebula, platform: Platform) -> None:
    platform.warnings = [{"code": "user_data_unknown", "detail": "it begins with nothing known"}]
    ran = nebula("vm", "create", "web-1", "--image", "debian-12", "--vcpus", "3", "--dry-run")
    assert ran.status == 0
    assert "node        host-1" in ran.out and "vcpus 3" in ran.out
    assert "warning: user-data: it begins with nothing known" in ran.err
    assert nebula("vm", "create", "web-1", "--image", "i", "--dry-run", "-o", "json").json["node"] == "host-1"
    assert not platform.vms
    assert nebula("vm", "create", "WEB", "--image", "i", "--dry-run").status == 1


def test_create_fails_as_the_operation_does(nebula: Nebula, platform: Platform) -> None:
    platform.fails_with = {"code": "image_unreadable", "detail": "the image is not there"}
    ran = nebula("vm", "create", "web-1", "--image", "debian-12")
    assert ran.status == 1
    assert "error: the image is not there (image_unreadable)" in ran.err
    assert ran.out == ""


def test_waiting_has_an_end(nebula: Nebula, platform: Platform) -> None:
    platform.stuck = True
    ran = nebula("vm", "create", "web-1", "--image", "debian-12", "--timeout", "0.01")
    assert ran.status == 4
    assert "it may still reach that state" in ran.err


def test_a_timed_out_operation_is_a_timeout(nebula: Nebula, platform: Platform) -> None:
    answer = platform.accept("start", platform.add_vm("web-1", "stopped"))
    operation = answer["id"]
    platform.end(answer, "timed_out", why("timed_out", "start did not finish in time"))
    assert nebula("operation", "wait", operation).status == 4


def test_power(nebula: Nebula, platform: Platform) -> None:
    vm = platform.add_vm("web-1")
    verbs = {"stop": "stopped", "start": "running", "restart": "running", "pause": "paused", "suspend": "suspended"}
    for verb, phase in {**verbs, "resume": "running"}.items():
        ran = nebula("vm", verb, "web-1", "-o", "json")
        assert ran.status == 0
        assert ran.json["vm"]["phase"] == phase
        assert platform.requests[-2][1].startswith("/v1/operations/")
    ran = nebula("vm", "delete", vm["id"])
    assert ran.status == 0
    assert "deleted" in ran.out


def test_resize_says_when_it_counts(nebula: Nebula, platform: Platform) -> None:
    vm = platform.add_vm("web-1")
    assert nebula("vm", "resize", "web-1").status == 2
    vm["pending_resize"] = True
    ran = nebula("vm", "resize", "web-1", "--vcpus", "2", "--memory", "1024", "--disk", "8")
    assert ran.status == 0
    assert "until it is stopped and started, or restarted" in ran.err


def test_each_address_is_shown_with_who_says_so(nebula: Nebula, platform: Platform) -> None:
    platform.add_vm("web-1")["address_sources"] = [{"address": "192.0.2.9", "source": "agent"}]
    shown = nebula("vm", "show", "web-1").out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in shown if "sources" in line] == ["address 192.0.2.9, source agent"]


def test_where_a_vm_went_and_why_not_elsewhere(nebula: Nebula, platform: Platform) -> None:
    vm = platform.add_vm("web-1")
    vm["considered"] = [{"node": "a", "reason": None, "more": 0}]
    shown = nebula("vm", "show", "web-1").out
    assert [line.split(maxsplit=1)[1] for line in shown.splitlines() if "considered" in line] == ["a was chosen"]
    assert "more 0" not in shown
    vm["considered"] = [
        {"node": "a", "reason": "is cordoned", "more": 3},
        {"node": "b", "reason": None, "more": 0},
        {"node": "c", "reason": "has no more free memory (2048 MiB)", "more": 0},
    ]
    lines = nebula("vm", "show", "web-1").out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("considered"))
    found = [line.removeprefix("considered").strip() for line in lines[first : first + 3]]
    assert found == ["b was chosen", "a is cordoned (and 3 more)", "c has no more free memory (2048 MiB)"]
    assert nebula("vm", "show", "web-1", "-o", "json").json["considered"] == vm["considered"]


def test_rebuild(nebula: Nebula, platform: Platform, tmp_path: Path) -> None:
    platform.add_vm("web-1", "stopped")
    seed = tmp_path / "seed"
    seed.write_text("#cloud-config")
    ran = nebula("vm", "rebuild", "web-1", "--image", "debian-13", "--user-data", str(seed))
    assert (ran.status, platform.requests[1][0]) == (0, "POST")
    assert "running" in ran.out


def test_rescue_and_back(nebula: Nebula, platform: Platform) -> None:
    vm = platform.add_vm("web-1", "running")
    ran = nebula("vm", "rescue", "web-1", "--image", "tools", "--grace", "5")
    assert ran.status == 0
    assert nebula("vm", "rescue", "web-1", "--force").status == 0
    assert nebula("vm", "unrescue", "web-1").status == 0
    asked = [target.rpartition("/")[2] for method, target, *_ in platform.requests if method == "POST"]
    assert asked == ["rescue", "rescue", "unrescue"]
    assert platform.bodies == [{"image": "tools", "grace_seconds": 5}, {"force": True}, {}]
    both = nebula("vm", "rescue", "web-1", "--force", "--grace", "5")
    assert (both.status, vm["name"]) == (2, "web-1")


def test_user_data_may_be_any_bytes_and_what_is_thought_of_it_is_said(
    nebula: Nebula, platform: Platform, tmp_path: Path
) -> None:
    file = tmp_path / "seed"
    contents = {"text": b"\xef\xbb\xbf#!/bin/sh\n", "gzip": b"\x1f\x8b\x08\x00\xff", "NUL": b"#!/bin/sh\n\0"}
    for name, data in contents.items():
        file.write_bytes(data)
        assert nebula("vm", "create", "web-1", "--image", "i", "--user-data", str(file)).status == 0
        sent = platform.bodies[-1]
        if name == "text":
            assert sent["user_data"].encode() == data
        else:
            assert base64.b64decode(sent["user_data_base64"]) == data
    platform.warnings = [{"code": "user_data_unknown", "detail": "cloud-init ignores it"}]
    ran = nebula("vm", "create", "web-1", "--image", "i", "--user-data", str(file), "-o", "json")
    assert (ran.status, ran.json["operation"]["warnings"]) == (0, platform.warnings)
    assert "warning: user-data: cloud-init ignores it (user_data_unknown)" in ran.err
    file.write_bytes(bytes(64 * 1024 + 1))
    ran = nebula("vm", "create", "web-1", "--image", "i", "--user-data", str(file))
    assert (ran.status, "gzip" in ran.err) == (2, True)


def test_what_will_never_be_ready_is_not_waited_for(nebula: Nebula, platform: Platform) -> None:
    why = {"code": "guest_cannot_say_ready", "detail": "its user-data turns vendor-data off"}
    platform.add_vm("web-1", warnings=[why])
    ran = nebula("vm", "wait", "web-1", "--for", "ready")
    assert (ran.status, "running, and its user-data turns vendor-data off (guest_cannot_say_ready)" in ran.err) == (
        1,
        True,
    )
    assert nebula("vm", "wait", "web-1", "--for", "running").status == 0
    platform.add_vm("web-2", ready=True, warnings=[why])
    assert nebula("vm", "wait", "web-2", "--for", "ready").status == 0


def test_restart_policy(nebula: Nebula, platform: Platform) -> None:
    vm = platform.add_vm("web-1")
    assert nebula("vm", "restart-policy", "web-1", "always").status == 0
    assert vm["restart_policy"] == "always"
    assert nebula("vm", "restart-policy", "web-1", "sometimes").status == 2
    made = nebula("vm", "create", "web-2", "--image", "i", "--restart", "on-failure", "-o", "json").json
    assert made["vm"]["restart_policy"] == "on-failure"


def test_watchdog(nebula: Nebula, platform: Platform) -> None:
    vm = platform.add_vm("web-1")
    assert nebula("vm", "watchdog", "web-1", "reset").status == 0
    assert vm["watchdog"] == "reset"
    assert nebula("vm", "watchdog", "web-1", "bark").status == 2
    made = nebula("vm", "create", "web-2", "--image", "i", "--watchdog", "poweroff", "-o", "json").json
    assert made["vm"]["watchdog"] == "poweroff"


def test_ways_out(nebula: Nebula, platform: Platform) -> None:
    vm = platform.add_vm("web-1", "failed")
    assert nebula("vm", "retry", "web-1").status == 0
    assert vm["phase"] == "running"
    platform.accept("stop", vm)
    assert nebula("vm", "abandon", "web-1").status == 0
    assert [op["status"] for op in platform.operations.values() if op["verb"] == "stop"] == ["cancelled"]
    assert nebula("vm", "forget", "web-1").status == 2
    ran = nebula("vm", "forget", "web-1", "--reason", "host-1 burnt down")
    assert ran.status == 0
    assert "deleted" in ran.out


def test_what_is_said_of_a_vm_is_changed(nebula: Nebula, platform: Platform) -> None:
    vm = platform.add_vm("web-1")
    assert nebula("vm", "rename", "web-1", "db-1").status == 0
    assert nebula("vm", "label", "db-1", "team=blue", "stage", "url=a=b").status == 0
    assert vm["labels"] == {"team": "blue", "stage": "", "url": "a=b"}
    assert nebula("vm", "label", "db-1", "a=b", "a=c").status == 2
    assert nebula("vm", "label", "db-1").status == 0
    assert nebula("vm", "tag", "db-1", "blue").status == 0
    assert nebula("vm", "protect", "db-1").status == 0
    assert (vm["labels"], vm["tags"], vm["protected"]) == ({}, ["blue"], True)
    assert nebula("vm", "unprotect", "db-1").status == 0
    assert vm["protected"] is False
    made = nebula("vm", "create", "web-2", "--image", "i", "--label", "team=blue", "--protected", "-o", "json").json
    assert (made["vm"]["labels"], made["vm"]["protected"]) == ({"team": "blue"}, True)
    assert nebula("vm", "list", "--label", "team=blue").status == 0
    assert platform.requests[-1][3]["label"] == "team=blue"


def test_names(nebula: Nebula, platform: Platform) -> None:
    twins = [platform.add_vm("twin"), platform.add_vm("twin", "stopped")]
    ran = nebula("vm", "stop", "twin")
    assert ran.status == 1
    assert "2 VMs are called twin; say which by id:" in ran.err
    assert all(vm["id"] in ran.err for vm in twins)
    assert not platform.keys("POST")
    assert nebula("vm", "stop", twins[0]["id"]).status == 0
    ran = nebula("vm", "show", "nobody")
    assert ran.status == 1
    assert "no VM is called nobody in project default" in ran.err


def test_lists_have_all_pages(nebula: Nebula, platform: Platform) -> None:
    platform.page_size = 2
    for number in range(5):
        platform.add_vm(f"web-{number}")
    names = [f"web-{number}" for number in range(5)]
    assert [line.split()[0] for line in nebula("vm", "list").out.splitlines()] == ["NAME", *names]
    assert [vm["name"] for vm in nebula("vm", "list", "-o", "json").json["items"]] == names


def test_the_vms_of_all_projects(nebula: Nebula, platform: Platform) -> None:
    platform.add_vm("web-1")
    platform.vms[platform.add_vm("web-2")["id"]]["project"] = "other"
    assert [line.split()[0] for line in nebula("vm", "list").out.splitlines()] == ["NAME", "web-1"]
    rows = [line.split()[:2] for line in nebula("vm", "list", "--all-projects").out.splitlines()]
    assert rows == [["PROJECT", "NAME"], ["default", "web-1"], ["other", "web-2"]]
    found = nebula("vm", "list", "--all-projects", "--name", "web-2", "-o", "json").json["items"]
    assert [vm["name"] for vm in found] == ["web-2"]


def test_wait(nebula: Nebula, platform: Platform) -> None:
    vm = platform.add_vm("web-1")
    ran = nebula("vm", "wait", "web-1", "--for", "ready")
    assert ran.status == 0
    assert ran.out == f"{vm['id']} running, no address yet, ready\n"
    platform.add_vm("web-2", "stopped")
    ran = nebula("vm", "wait", "web-2", "--for", "running")
    assert ran.status == 1
    assert "VM web-2 is stopped" in ran.err


#: Keys as there may be: the gateway looks into them.
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG"
A, B, C = (ED25519 + letter * 42 for letter in "ABC")


def test_ssh_keys_come_from_files_or_as_they_are(nebula: Nebula, platform: Platform, tmp_path: Path) -> None:
    file = tmp_path / "keys.pub"
    file.write_text(f"\ufeff{A} a\N{GRINNING FACE}\r\n# mine\n\n{B} b\n", "utf-8")
    ran = nebula("vm", "create", "web-1", "--image", "i", "--ssh-key", str(file), "--ssh-key", f"{C} c")
    assert ran.status == 0
    (vm,) = platform.vms.values()
    assert vm["ssh_keys"] == [f"{A} a\N{GRINNING FACE}", f"{B} b", f"{C} c"]


def test_a_key_file_in_utf_16_is_read(nebula: Nebula, platform: Platform, tmp_path: Path) -> None:
    file = tmp_path / "keys.pub"
    file.write_text(f"{A} a\r\n", "utf-16")
    assert nebula("vm", "create", "web-1", "--image", "i", "--ssh-key", str(file)).status == 0
    (vm,) = platform.vms.values()
    assert vm["ssh_keys"] == [f"{A} a"]


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        (A.replace(" ", "\t") + "\tme at home", True),
        (f"\ufeff {A} me\n", True),
        ('from="10.0.0.0/8",no-pty ssh-ed25519 AAAAC3Nz me', False),
        ('command="echo hi"\tssh-rsa\tAAAAB3Nz', False),
    ],
)
def test_ssh_keys_with_tabs_are_taken_and_options_are_named(
    nebula: Nebula, platform: Platform, tmp_path: Path, key: str, sent: bool
) -> None:
    file = tmp_path / "my keys.pub"
    file.write_text(key, "utf-8")
    for given in (key, str(file)):
        ran = nebula("vm", "create", "web-1", "--image", "i", "--ssh-key", given)
        assert ran.status == (0 if sent else 2)
        assert sent or "has options before its type; leave them out" in ran.err
    assert len(platform.vms) == 2 * sent


def test_a_vm_is_named_by_its_id_in_upper_case(nebula: Nebula, platform: Platform) -> None:
    vm = platform.add_vm("web-1")
    assert nebula("vm", "show", vm["id"].upper()).status == 0


def test_small_sizes_are_not_zero() -> None:
    assert [output.size(count) for count in (0, 512, 12_288, 186 * 2**20, 10 * 2**30)] == [
        *("0 B", "512 B", "12 KiB", "186 MiB", "10 GiB")
    ]
    assert [gauge.size(count) for count in (0, 512, 12_288, 186 * 2**20)] == ["0 B", "512 B", "12 KiB", "186 MiB"]


GUEST = {
    "hostname": "web-1",
    "os": {"id": "debian", "name": "Debian GNU/Linux 12 (bookworm)", "version": "12", "kernel_release": "6.1.0-26"},
    "timezone": None,
    "interfaces": [
        {"name": "lo", "mac": None, "addresses": [{"address": "127.0.0.1", "prefix": 8}]},
        {"name": "ens2", "mac": "52:54:00:00:00:07", "addresses": [{"address": "192.168.122.7", "prefix": 24}]},
    ],
    "more_interfaces": 0,
    "filesystems": [
        {"mountpoint": "/", "device": "vda1", "type": "ext4", "total_bytes": 4 << 30, "used_bytes": 1 << 30},
        {"mountpoint": "/srv", "device": None, "type": "nfs", "total_bytes": None, "used_bytes": None},
    ],
    "more_filesystems": 3,
}


def test_what_a_guest_says(nebula: Nebula, platform: Platform) -> None:
    platform.add_vm("web-1")
    platform.guest = GUEST
    ran = nebula("vm", "guest", "web-1")
    assert ran.status == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["hostname", "web-1"],
        ["os", "Debian", "GNU/Linux", "12", "(bookworm)"],
        ["kernel", "6.1.0-26"],
        [],
        ["INTERFACE", "MAC", "ADDRESSES"],
        ["lo", "-", "127.0.0.1/8"],
        ["ens2", "52:54:00:00:00:07", "192.168.122.7/24"],
        [],
        ["MOUNTPOINT", "DEVICE", "TYPE", "SIZE", "USED", "USE"],
        ["/", "vda1", "ext4", "4.0", "GiB", "1.0", "GiB", "25", "%"],
        ["/srv", "-", "nfs", "-", "-", "-"],
    ]
    assert "and 3 more filesystems" in ran.err
    assert nebula("vm", "guest", "web-1", "-o", "json").json == GUEST
    platform.guest = {**GUEST, "os": None, "filesystems": None}
    ran = nebula("vm", "guest", "web-1")
    assert (ran.status, "MOUNTPOINT" in ran.out) == (0, False)
    assert "does not report filesystems" in ran.err
    platform.guest = None
    ran = nebula("vm", "guest", "web-1")
    assert (ran.status, "guest_agent_missing" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("count", "told"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (20 << 30, "20 GiB"), (2**63 - 1, "8.0 EiB")]
)
def test_bytes_for_people(count: int, told: str) -> None:
    assert size(count) == told


def test_what_a_vm_or_a_node_used(nebula: Nebula, platform: Platform) -> None:
    platform.add_vm("web-1")
    ran = nebula("vm", "usage", "web-1", "--since", "6h")
    assert ran.status == 0
    assert platform.requests[-1][3] == {"since": "6h", "points": "120"}
    head, *rows = [line.split("  ") for line in ran.out.splitlines()]
    assert [word.strip() for word in head if word][:5] == ["SERIES", "NOW", "AVERAGE", "MAXIMUM", "OF"]
    assert [[word.strip() for word in row if word] for row in rows] == [
        ["cpu", "2.00", "1.00", "2.00", "2.00", "·▁▅█"],
        ["memory", "1.0 GiB", "597 MiB", "1.0 GiB", "1.0 GiB", "·▃▅█"],
        ["disk", "1.0 GiB", "597 MiB", "1.0 GiB", "-", "·▃▅█"],
        ["disk read", "1.0 GiB/s", "597 MiB/s", "1.0 GiB/s", "-", "·▃▅█"],
        ["disk written", "0 B/s", "0 B/s", "0 B/s", "-", "▁▁▁▁"],
        ["network in", "1.5 KiB/s", "1.5 KiB/s", "1.5 KiB/s", "-", "████"],
        ["network out", "-", "-", "-", "-", "····"],
    ]
    node = nebula("node", "usage", "host-1")
    assert (node.status, node.out) == (0, ran.out)
    assert nebula("node", "usage", "host-1", "-o", "json").json == platform.usage
    assert nebula("vm", "usage", "web-2").status == 1


def test_a_time_of_which_nothing_is_known(nebula: Nebula, platform: Platform) -> None:
    platform.add_vm("web-1")
    unknown = {name: None for name in platform.usage["points"][0] if name != "at"}
    platform.usage = {**platform.usage, "points": [{**each, **unknown} for each in platform.usage["points"]]}
    ran = nebula("vm", "usage", "web-1")
    assert (ran.status, "nothing is known of this time" in ran.err) == (0, True)
    platform.usage = {**platform.usage, "points": []}
    assert nebula("vm", "usage", "web-1").status == 0


def test_a_long_series_is_a_line_of_forty_characters() -> None:
    rising = bars([float(number) for number in range(500)])
    assert (len(rising), rising[0], rising[-1], list(rising)) == (40, "▁", "█", sorted(rising))
    assert bars([None] * 450 + [1.0] * 50, 2.0) == "·" * 36 + "▅" * 4
    assert (bars([]), bars([0.0, 0.0]), bars([9.0], 1.0)) == ("", "▁▁", "█")


def test_a_list_as_it_was(nebula: Nebula, platform: Platform) -> None:
    nebula("vm", "create", "web-1", "--image", "i")
    before = len(platform.events)
    nebula("vm", "create", "web-2", "--image", "i")
    assert "web-2" in nebula("vm", "list").out
    then = nebula("vm", "list", "--at", str(before))
    assert "web-1" in then.out and "web-2" not in then.out
    assert nebula("vm", "list", "--at", "999").status == 1
    events = nebula("events", "--at", str(before), "-o", "json").out.splitlines()
    assert len(events) == before
    assert "either --at or --follow" in nebula("events", "--at", "1", "--follow").err
