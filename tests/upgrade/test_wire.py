"""The version before and this one read what the other writes: messages on the bus, events, and read models.

Nothing runs here: the types of both are compared. What differs on purpose stands in CHANGED with the reason.
"""

import copy
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.version import VERSION
from tests.upgrade import programs, wire

Wire = dict[str, Any]

#: Fields that may have other values than before: why both versions can read the other's.
CHANGED: dict[str, str] = {}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Wire:
    folder = programs.unpack(tmp_path_factory.mktemp("programs") / "before")
    env = {**os.environ, **programs.environment(folder)}
    script = Path(wire.__file__)
    said = subprocess.run([sys.executable, str(script)], env=env, check=True, capture_output=True, timeout=120).stdout
    found: Wire = json.loads(said)
    return found


@pytest.fixture(scope="module")
def now() -> Wire:
    found: Wire = json.loads(
        json.dumps({"messages": wire.messages(), "events": wire.events(), "read_models": wire.read_models()})
    )
    return found


def faults(before: Wire, now: Wire) -> list[str]:
    """What one of the two versions cannot read, or would read as something else."""
    return [
        *(fault for name in before["messages"] for fault in unreadable(name, before["messages"], now["messages"])),
        *unreadable_events(before["events"], now["events"]),
        *not_rebuilt(before, now),
    ]


def unreadable(name: str, before: Wire, now: Wire) -> Iterator[str]:
    if name not in now:
        yield f"{name}: the version before sends it"
        return
    earlier, later = before[name]["fields"], now[name]["fields"]
    for field in earlier.keys() - later.keys():
        if earlier[field]["needed"]:
            yield f"{name}.{field}: the version before needs it"
        if now[name]["strict"]:
            yield f"{name}.{field}: this version refuses it"
    for field in later.keys() - earlier.keys():
        if later[field]["needed"]:
            yield f"{name}.{field}: the version before does not send it"
        if before[name]["strict"]:
            yield f"{name}.{field}: the version before refuses it"
    for field in earlier.keys() & later.keys():
        if earlier[field]["values"] != later[field]["values"] and f"{name}.{field}" not in CHANGED:
            yield f"{name}.{field}: has other values than before"
        if later[field]["needed"] and not earlier[field]["needed"]:
            yield f"{name}.{field}: the version before may leave it out"


def unreadable_events(before: Wire, now: Wire) -> Iterator[str]:
    """An event with a higher version is upcast from the earlier one, and unknown to the version before."""
    for topic in before:
        if topic not in now or now[topic]["version"] == before[topic]["version"]:
            yield from unreadable(topic, before, now)


def not_rebuilt(before: Wire, now: Wire) -> Iterator[str]:
    """Read models that the version before fills without the content of newer events, and that this one would keep."""
    changed = [
        topic
        for topic, event in now["events"].items()
        if topic not in before["events"]
        or event["version"] != before["events"][topic]["version"]
        or event["fields"].keys() != before["events"][topic]["fields"].keys()
    ]
    for name, model in now["read_models"].items():
        earlier = before["read_models"].get(name)
        if model["kinds"] is None or earlier is None or model["version"] > earlier["version"]:
            continue
        for topic in changed:
            if topic.split(".")[1] in model["kinds"]:
                yield f"raise the version of the read model {name}: the version before does not know all of {topic}"


def test_this_version_is_higher_than_the_one_before(tmp_path: Path) -> None:
    earlier, own = (
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
        for folder in (programs.unpack(tmp_path / "before"), Path(wire.__file__).parents[2])
    )
    assert own == VERSION
    assert [int(part) for part in own.split(".")] > [int(part) for part in earlier.split(".")]


def test_each_reads_what_the_other_writes(before: Wire, now: Wire) -> None:
    assert faults(before, now) == []


def test_what_one_of_them_cannot_read_is_found(now: Wire) -> None:
    """The comparison is able to fail."""

    def found(section: str, name: str, change: dict[str, Any]) -> list[str]:
        later = copy.deepcopy(now)
        later[section][name].update(change)
        return faults(now, later)

    more = {"needed": True, "values": {}}
    lease, event = now["messages"]["node.LeaseGranted"], now["events"]["nebula.vm.VmStarted"]
    assert found("messages", "node.LeaseGranted", {"fields": {**lease["fields"], "more": more}}) == [
        "node.LeaseGranted.more: the version before does not send it"
    ]
    assert found("messages", "node.LeaseGranted", {"fields": {}}) != []
    strict = copy.deepcopy(now)
    strict["messages"]["node.LeaseGranted"]["strict"] = True
    optional = copy.deepcopy(strict)
    optional["messages"]["node.LeaseGranted"]["fields"]["more"] = {"needed": False, "values": {}}
    assert faults(strict, optional) == ["node.LeaseGranted.more: the version before refuses it"]
    assert faults(optional, strict) == ["node.LeaseGranted.more: this version refuses it"]
    raised = found("events", "nebula.vm.VmStarted", {"version": event["version"] + 1})
    assert any("read model vms" in fault for fault in raised)
    assert any("read model seeds" in fault for fault in raised)
    gone = copy.deepcopy(now)
    del gone["events"]["nebula.vm.VmStarted"]
    assert faults(now, gone) == ["nebula.vm.VmStarted: the version before sends it"]
    new = copy.deepcopy(now)
    new["events"]["nebula.project.Moved"] = event
    assert faults(now, new) == [
        "raise the version of the read model projects: the version before does not know all of nebula.project.Moved"
    ]
