"""The logs of `python -m bench scale`: valid, kept, and not changed by those who use a copy."""

import hashlib
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from bench import past
from bench.scale import lists, models, rows
from bench.scale.goals import GOALS
from bench.scale.lives import AFTER_PLACEMENT, Life, nodes
from bench.scale.logs import log_of, with_bus, with_log
from domain.vm import Phase, Vm, evolve
from eventstore.integrity.audit import verify_log
from eventstore.integrity.checkpoints import public_keys
from eventstore.log.keyring import Keyring
from runtime import subjects
from tests.waiting import eventually

VMS = 40


def content(folder: Path) -> dict[str, str]:
    """The digests of all files in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


async def test_a_log_is_valid_and_is_kept_unchanged(tmp_path: Path) -> None:
    kept = await log_of(VMS, tmp_path)
    before = content(kept)
    async with with_bus(VMS, tmp_path) as (nc, folder):
        keys, ring = public_keys(folder / "checkpoint.pub"), Keyring(folder / "event.keys")
        report = await verify_log(nc, keys=keys, event_keys=ring)
        assert report.ok, report.findings
        assert report.proven == report.last > 9 * VMS
        await nc.jetstream().publish("nebula.parked.log.1", b"{}")
    assert content(kept) == before
    assert await log_of(VMS, tmp_path) == kept
    assert content(kept) == before


async def test_handlers_that_start_on_a_log_append_nothing_and_write_the_documents(tmp_path: Path) -> None:
    async with with_log(VMS, tmp_path) as cloud:
        nc = await cloud.bus()
        js = nc.jetstream()
        before = (await js.stream_info(subjects.EVENTS)).state.messages
        await cloud.start("handlers")
        wanted = sum(not Life(number, VMS).deleted for number in range(VMS))

        async def written() -> bool:
            with suppress(NotFoundError):
                return (await js.stream_info(subjects.WANTED)).state.messages == wanted
            return False

        await eventually(written, "all wanted documents are written")
        assert (await js.stream_info(subjects.EVENTS)).state.messages == before
        await nc.close()


def test_each_life_ends_without_anything_pending() -> None:
    phases = set()
    for number in range(200):
        life, vm = Life(number, 200), None
        events = [*life.requested().events, life.scheduled()[0]]
        events += [event for step in AFTER_PLACEMENT for append in [step(life)] if append for event in append.events]
        for event in events:
            vm = evolve(vm, event)
        assert isinstance(vm, Vm)
        assert vm.pending is None
        assert vm.node == life.node
        phases.add(vm.phase)
    assert phases == {Phase.RUNNING, Phase.STOPPED, Phase.DELETED}


def test_a_small_cloud_has_few_nodes() -> None:
    assert [nodes(vms) for vms in (1, 1000, 10_000, 1_000_000)] == [4, 20, 200, 200]


async def test_the_rows_are_printed_with_their_growth(tmp_path: Path) -> None:
    found = await rows.measure(vms=VMS, rows="verify", home=tmp_path)
    growth = found["growth"]
    assert isinstance(growth, dict)
    assert growth["verify"]["events"] > 1
    assert rows.growth({"a": 2.0, "b": 0.0, "c": 1.0}, {"a": 4.0, "b": 1.0}) == {"a": 2.0}


async def test_each_part_runs_and_a_failure_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stages(count: int) -> dict[str, Any]:
        assert count == 300
        return {"create": {"ms_p50": 19.0}, "stop": {"ms_p50": 16.0, "ms_max": 250}}

    async def commands(gateways: int = 1, handlers: int = 1) -> dict[str, Any]:
        if gateways == 2:
            raise RuntimeError("no second gateway")
        return {"ratio": 0.7}

    modules = {"bench.stages": SimpleNamespace(measure=stages), "bench.commands": SimpleNamespace(measure=commands)}
    monkeypatch.setattr(rows, "importlib", SimpleNamespace(import_module=modules.__getitem__))
    found = await rows.measure(rows="commands-2,commands,stages")
    assert found["failed"] == {"commands-2": "RuntimeError('no second gateway')"}
    said = {each["figure"]: each["outcome"] for each in found["goals"].values()}
    assert said["commands.ratio"] == said["stages.create.ms_p50"] == said["stages.stop.ms_max"] == "reached"
    assert said["stages.stop.ms_p50"] == "not reached"
    assert said["commands-2.ratio"] == said["stages.start.ms_p50"] == said["verify.events_per_second"] == "not measured"


def test_each_goal_is_of_a_row_and_each_row_but_some_has_one() -> None:
    assert {goal.row for goal in GOALS} == {*rows.ROWS, *rows.PARTS}
    assert len({goal.text for goal in GOALS}) == len(GOALS)


async def test_the_read_models_are_made_and_proved(tmp_path: Path) -> None:
    found = await models.measure(VMS, tmp_path)
    assert found["verify_views_rows"] > found["events"] > 9 * VMS
    assert found["cpu_us_per_event"] > 0
    assert found["judging_us_per_event"] == 0, "the log is too short for other processes"
    assert 0 <= found["memory_mib"] < 200, "so few VMs may find room in what this process has already"


def test_the_peak_of_memory_is_measured() -> None:
    before = models.memory_mib()
    assert len(b"x" * 2**26) == 2**26
    assert 60 < models.memory_mib(peak=True) - before < 100
    assert models.memory_mib() - before < 30, "it was freed, and the peak begins anew"


async def test_each_list_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "ROUNDS", 2)
    monkeypatch.setattr(lists, "LIMIT", 1)
    found = await lists.measure(10 * VMS, tmp_path)
    assert found["lists"] > len(lists.choices()), "some have a deep page too"
    assert found["vms_ratio"] > 0


async def test_reads_of_the_past_are_measured_on_a_log_with_a_large_project(tmp_path: Path, open_folder: Path) -> None:
    options: dict[str, Any] = {"vms": 120, "inside": 20, "rounds": 2, "home": tmp_path, "rows": open_folder}
    found = await past.measure(**options)
    assert found["events"] > 9 * 120 and not found["rows_kept"]
    assert found["past_events_per_second"] > 0 and found["past_bytes_per_event"] > 0
    of_lists = found["lists"]["lists"]
    assert 40 <= of_lists["no filter"]["items"] <= 46
    assert of_lists["name=nobody"]["items"] == 0
    assert found["lists"]["p99_ms"] == max(
        page["p99_ms"] for each in of_lists.values() for page in each.values() if isinstance(page, dict)
    )
    assert found["marks"]["first_events"] == found["events"] - 1
    assert found["diffs"]["ranges"]["one VM"]["items"] == 1
    assert {each["outcome"] for each in found["goals"].values()} <= {"reached", "not reached"}
    again = await past.measure(**options)
    assert again["rows_kept"] and again["past_seconds"] == found["past_seconds"]
    assert again["lists"]["lists"]["no filter"]["items"] == of_lists["no filter"]["items"]


def test_each_so_many_th_vm_is_of_the_large_project() -> None:
    """And all else of the life is as it is without it."""
    for number in range(50):
        usual, other = Life(number, 50), Life(number, 50, 5)
        assert (other.id, other.node, other.deleted) == (usual.id, usual.node, usual.deleted)
        assert other.ref.project == ("project-00" if number % 5 == 0 else usual.ref.project)
