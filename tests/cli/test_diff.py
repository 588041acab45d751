"""`nebula diff`: what changed between two moments, against a real platform."""

import subprocess
import uuid
from collections.abc import Iterator

import pytest

from bench import homes
from tests.cli.test_catalog import Cli
from tests.cli.test_up import told, up


@pytest.fixture(scope="module")
def real() -> Iterator[Cli]:
    with homes.home("cli") as home, up(home) as running:
        yield Cli(home, next(line.split()[1] for line in told(running) if line.startswith("gateway")))


def lines(ran: subprocess.CompletedProcess[str]) -> list[str]:
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def renamed(real: Cli, count: int) -> tuple[str, int, int]:
    """A tag with so many changes of its name: its id, the position before its first event, that of the last one."""
    tag = f"t-{uuid.uuid4().hex[:8]}"
    first = real.json("tag", "create", "0", "--id", tag)["operation"]["position"]
    last = first
    for number in range(1, count + 1):
        last = real.json("tag", "rename", tag, str(number))["operation"]["position"]
    return tag, first - 1, last


def test_a_change_in_words(real: Cli) -> None:
    tag, before, last = renamed(real, 1)
    of_tag = ("--kind", "tag", "--id", tag)
    [head, *rest] = lines(real.run("diff", "--from", str(before), *of_tag))
    assert head == "tag 1: created"
    assert [line.split()[0] for line in rest] == [str(before + 1), str(last)]
    assert "Tag created" in rest[0] and "asked for it" in rest[0]
    [head, change, event] = lines(real.run("diff", "--from", str(last - 1), "--to", str(last), *of_tag))
    assert (head, change) == ("tag 1: changed", "    name changed from 0 to 1")
    assert event.split()[0] == str(last)
    assert lines(real.run("diff", "--from", str(last), "--to", str(last), *of_tag)) == []
    assert lines(real.run("diff", "--from", str(last), *of_tag)) == []


def test_json_is_what_the_api_says(real: Cli) -> None:
    tag, before, last = renamed(real, 25)
    found = real.json("diff", "--from", str(before), "--to", str(last), "--id", tag)
    [item] = found["items"]
    assert (item["kind"], item["id"], item["what"], item["name"]) == ("tag", tag, "created", "25")
    assert len(item["events"]) + item["more_events"] == 26
    text = lines(real.run("diff", "--from", str(before), "--to", str(last), "--id", tag))
    assert text[-1] == f"    and {item['more_events']} more events"
    [changed] = real.json("diff", "--from", str(before + 1), "--to", str(last), "--id", tag)["items"]
    assert [(each["field"], each["before"], each["after"]) for each in changed["changes"]] == [("name", "0", "25")]


def test_a_long_range_is_read_page_by_page(real: Cli) -> None:
    """More resources than one page has; and by time, from before the first event."""
    start = real.json("tag", "create", "first", "--id", f"t-{uuid.uuid4().hex[:8]}")["operation"]["position"]
    ids = {f"t-{uuid.uuid4().hex[:12]}" for _ in range(12)}
    for each in ids:
        real.json("tag", "create", each, "--id", each)
    found = real.json("diff", "--from", str(start), "--kind", "tag")["items"]
    assert ids == {item["id"] for item in found}
    by_time = real.json("diff", "--from", "2000-01-01T00:00:00Z", "--kind", "tag")["items"]
    assert ids <= {item["id"] for item in by_time}
    assert real.json("diff", "--from", str(start), "--to", "2000-01-01T00:00:00Z")["items"] == []


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--from", "yesterday"), "from"),
        (("--from", "1", "--to", "99999999"), "to"),
        (("--from", "1", "--to", "2999-01-01T00:00:00Z"), "to"),
        (("--from", "1", "--kind", "nothing"), "kind"),
    ],
)
def test_a_wrong_moment_is_refused_in_words(real: Cli, arguments: tuple[str, ...], field: str) -> None:
    assert field in real.refusal("diff", *arguments)


def test_a_vm_by_its_name(real: Cli) -> None:
    """`nebula diff VM` is about that VM, by its name or id, in the project of the command."""
    file = real.home / "images" / "disk.img"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"\0" * 510 + b"\x55\xaa" + b"\0" * (1024 * 1024))
    real.json("image", "register", str(file))
    made = real.json("vm", "create", "web", "--image", "disk", "--memory", "64")
    vm, running = made["vm"]["id"], made["vm"]["position"]
    stopped = real.json("vm", "stop", "web", "--force")["vm"]["position"]
    real.json("vm", "label", "web", "team=blue")
    life = real.json("diff", "web")
    assert [(item["kind"], item["id"], item["what"]) for item in life["items"]] == [("vm", vm, "created")]
    said = lines(real.run("diff", "web", "--from", str(running)))
    assert said[0] == "vm web in default: changed"
    assert "    phase changed from running to stopped" in said
    assert "    label team is now blue" in said
    assert lines(real.run("diff", vm, "--from", str(running), "--to", str(stopped)))[0] == said[0]
    assert "no VM is called nothing" in real.refusal("diff", "nothing")
    for wrong in (("web", "--kind", "tag"), ("web", "--id", vm), ()):
        assert real.run("diff", *wrong).returncode == 2
