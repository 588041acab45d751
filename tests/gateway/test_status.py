"""`GET /v1/status` and `nebula status`: who is alive, who is silent, what fails, and where the managers work."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli.commands.status import past_lag
from domain.contract import ManagerStatus, PastStatus, RoleProcess, RoleStatus
from gateway.monitoring import health_memory, roles as module
from gateway.monitoring.health_memory import HealthMemory
from gateway.monitoring.roles import MOST, STATUS, Report, Roles
from gateway.operators import health
from gateway.operators.status import lease, managers, roles
from runtime import subjects
from runtime.process import this
from runtime.version import VERSION
from tests.gateway.platform import Platform
from tests.waiting import eventually

NOW = datetime.now(UTC)
MANAGERS = {"placement", "dispatch", "deletions", "liveness", "deadlines", "images", "kept images", "notary"}
EVERYWHERE = ["kept images", "snapshots"]


def word(role: Any = "handlers", **more: Any) -> RoleStatus:
    process = RoleProcess(id=uuid.uuid4().hex, host="h", pid=1)
    return RoleStatus.model_validate({"role": role, "process": process, "began": NOW, "version": "1.2.3", **more})


def manager(name: str, **more: Any) -> ManagerStatus:
    return ManagerStatus.model_validate({"name": name, "works": True, "everywhere": False, **more})


def put(found: Roles, said: RoleStatus) -> None:
    found.apply(subjects.role_status(said.role, said.process.id), said.model_dump_json().encode())


def heard(*said: RoleStatus) -> list[Report]:
    found = Roles()
    for each in said:
        put(found, each)
    return found.all()


def named(row: Any) -> str | None:
    """The process in a row."""
    return row["process"] and str(row["process"]["id"])


# ── what is heard ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_process_that_says_nothing_is_silent_and_one_that_ends_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("gateway.monitoring.roles.time.monotonic", lambda: clock[0])
    one, other = word(), word("projections")
    found = Roles()
    put(found, one)
    put(found, other)
    assert [each.alive for each in found.all()] == [True, True]
    clock[0] += module.SILENT
    put(found, other)
    assert [(each.status.role, each.alive) for each in found.all()] == [("handlers", False), ("projections", True)]
    clock[0] += module.SHOWN
    assert [each.status.role for each in found.all()] == ["handlers", "projections"], "the last one of its role"
    put(found, successor := word())
    assert [each.status for each in found.all() if each.status.role == "handlers"] == [successor]
    put(found, successor.model_copy(update={"ends": True}))
    assert [each.status for each in found.all() if each.status.role == "handlers"] == [one]


GOOD = word(managers=(manager("placement"),)).model_dump(mode="json")
NONSENSE: list[Any] = [
    b"",
    b"hi",
    b"[" * 5000,
    b"\xff\xfe",
    b"null",
    {**GOOD, "role": "somebody"},
    {**GOOD, "process": {**GOOD["process"], "id": "../x"}},
    {**GOOD, "process": {**GOOD["process"], "pid": -1}},
    {**GOOD, "began": "yesterday"},
    {**GOOD, "position": -1},
    {**GOOD, "position": 2**70},
    {**GOOD, "managers": [3]},
    {**GOOD, "managers": [{**GOOD["managers"][0], "period": "NaN"}]},
    {**GOOD, "managers": GOOD["managers"] * 1000},
    {**GOOD, "managers": [{**GOOD["managers"][0], "items": ["x"] * 1000}]},
]


@pytest.mark.parametrize("said", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_no_sign_of_life(said: Any) -> None:
    found = Roles()
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    found.apply(subjects.role_status("handlers", GOOD["process"]["id"]), body)
    counted = found.malformed.of(STATUS)
    assert (found.all(), counted and counted.count) == ([], 1)


def test_nobody_speaks_for_another_process() -> None:
    found = Roles()
    said = word().model_dump_json().encode()
    for subject in (subjects.role_status("handlers", uuid.uuid4().hex), subjects.role_status("gateway", "x"), "x.y"):
        found.apply(subject, said)
    assert found.all() == []


def test_a_flood_of_names_is_bounded_and_texts_are_one_line() -> None:
    found = Roles()
    for _ in range(MOST + 5):
        put(found, word(last_error="a\n" * 1000))
    assert len(found.all()) == MOST
    text = found.all()[0].status.last_error
    assert text is not None
    assert len(text) <= 300
    assert "\n" not in text


# ── what is shown ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_manager_is_shown_where_it_works() -> None:
    standby = word(managers=(manager("placement", works=False), manager("kept images", everywhere=True)))
    works = word(managers=(manager("placement", last_error="x"), manager("kept images", everywhere=True)))
    for order in ((standby, works), (works, standby)):
        shown = managers(heard(*order))
        placement = [each for each in shown if each["name"] == "placement"]
        assert [named(each) for each in placement] == [works.process.id]
        assert placement[0]["last_error"] == "x"
        assert sum(each["name"] == "kept images" for each in shown) == 2
    (nowhere,) = [each for each in managers(heard(standby)) if each["name"] == "placement"]
    assert (nowhere["process"], nowhere["alive"]) == (None, False)


def test_the_holder_of_the_lease_is_shown_by_its_own_word_first() -> None:
    holder, old = word(), word()
    holder = holder.model_copy(update={"holder": holder.process})
    standby = word(holder=old.process)
    for order in ((holder, standby), (standby, holder)):
        assert named(lease(heard(*order))) == holder.process.id
        assert lease(heard(*order))["alive"]
    found = lease(heard(standby))
    assert (named(found), found["alive"]) == (old.process.id, False)
    assert lease([]) == {"name": "managers", "process": None, "alive": False}


def test_a_role_of_which_nobody_is_heard_is_shown() -> None:
    shown = roles(heard(word("projections", position=7)), 10)
    assert [(each["role"], each["alive"], each["lag"]) for each in shown] == [
        ("handlers", False, None),
        ("projections", True, 3),
        ("guest-data", False, None),
    ]


def test_a_past_that_lags_or_fails_is_shown() -> None:
    past = PastStatus(position=4, last_error="no room", failing_since=datetime.now(UTC))
    shown = roles(heard(word("projections", position=7, past=past), word("projections", position=7)), 10)
    with_past, without = sorted(
        (each for each in shown if each["role"] == "projections"), key=lambda one: not one["past"]
    )
    assert with_past["past"] is not None
    assert (with_past["past"]["position"], with_past["past"]["lag"]) == (4, 6)
    assert (with_past["past"]["last_error"], without["past"]) == ("no room", None)
    assert past_lag({"past": with_past["past"]}) == "failing"
    assert past_lag({"past": {**with_past["past"], "failing_since": None}}) == 6
    assert past_lag({}) is None, "a gateway of the version before"


def test_healthz_shows_a_manager_that_fails_in_another_process_than_the_one_that_answered() -> None:
    elsewhere = heard(word(managers=(manager("placement", failing_since=NOW),)))
    told: list[dict[str, Any]] = [
        {"name": "placement", "works": False, "failing_since": None},
        {"name": "dispatch", "works": True, "failing_since": None},
        {"name": ["x"], "works": False},
    ]
    shown = health.working(told, elsewhere)
    assert [each.get("failing_since") is not None for each in shown] == [True, False, False]
    assert [set(each) for each in shown] == [set(each) for each in told]


def test_healthz_says_so_when_managers_work_nowhere_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the lease moves on they do not fail, and a manager that works again does not either."""
    memory = HealthMemory()
    idle: list[dict[str, Any]] = [{"name": "placement", "works": False, "failing_since": None}]
    assert memory.dated(idle) == idle
    monkeypatch.setattr(health_memory, "IDLE", timedelta(0))
    assert memory.dated(idle)[0]["failing_since"]
    works: list[dict[str, Any]] = [{"name": "placement", "works": True, "failing_since": None}]
    assert memory.dated(works) == works
    monkeypatch.setattr(health_memory, "IDLE", timedelta(seconds=15))
    assert memory.dated(idle) == idle


# ── on a platform ───────────────────────────────────────────────────────────────────────────────────────────────────


async def shown(api: Platform) -> dict[str, Any]:
    found: dict[str, Any] = await api.get("/v1/status")
    return found


async def test_a_platform_that_works(api: Platform) -> None:
    """A process of an earlier test, which was killed, is shown beside those that live."""
    pid = api.side.processes[0].pid

    async def complete() -> dict[str, Any] | None:
        found = await shown(api)
        alive = {(each["name"], each["process"]["pid"]) for each in found["managers"] if each["alive"]}
        return found if {name for name, _ in alive} >= MANAGERS and {of for _, of in alive} == {pid} else None

    await api.side.heartbeat("host-1")
    found = await eventually(complete, "all managers are shown")
    handlers = next(each for each in found["roles"] if each["role"] == "handlers" and each["process"]["pid"] == pid)
    assert (handlers["alive"], handlers["last_error"]) == (True, None)
    assert found["leases"] == [{"name": "managers", "process": handlers["process"], "alive": True}]
    assert sorted(each["name"] for each in found["managers"] if each["alive"] and each["everywhere"]) == EVERYWHERE
    own = next(each for each in found["roles"] if each["role"] == "gateway")
    assert own["process"]["pid"] == this().pid
    assert {each["version"] for each in found["roles"] if each["alive"]} == {VERSION}
    assert found["position"] >= own["position"] > 0
    (node,) = [each for each in found["nodes"] if each["node"] == "host-1"]
    assert (node["state"], node["daemon"]["host"]) == ("ready", "tests")
    assert set(found["parked"]) == {"open", "total", "more"}


async def test_who_is_silent_is_shown_and_who_speaks_again_too(api: Platform) -> None:
    """No projections process runs here, but what keeps the read models: so a test speaks in its place."""

    async def projections() -> dict[str, Any]:
        found: dict[str, Any] = next(each for each in (await shown(api))["roles"] if each["role"] == "projections")
        return found

    assert (await projections())["alive"] is False
    said = word("projections", last_error="Postgres is full", failing_since=NOW, position=1)
    subject = subjects.role_status("projections", said.process.id)

    async def lives() -> dict[str, Any] | None:
        await api.side.nc.publish(subject, said.model_dump_json().encode())
        found = await projections()
        return found if found["alive"] else None

    found = await eventually(lives, "it is alive")
    assert (found["last_error"], found["process"]["host"]) == ("Postgres is full", "h")
    assert found["lag"] > 0
    assert found["failing_since"]

    async def silent() -> bool:
        return not (await projections())["alive"]

    await eventually(silent, "it is silent")
    said = said.model_copy(update={"ends": True})
    await api.side.nc.publish(subject, said.model_dump_json().encode())

    async def forgotten() -> bool:
        return (await projections())["process"] is None

    await eventually(forgotten, "it is not shown")


async def test_the_command_line_shows_it(
    api: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: Any
) -> None:
    from cli.main import main

    monkeypatch.setenv("NEBULA_URL", api.url)
    monkeypatch.setenv("NEBULA_HOME", str(tmp_path))

    def run(*arguments: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code
        return str(capsys.readouterr().out)

    async def complete() -> str | None:
        said = await asyncio.to_thread(run, "status")
        return said if "placement" in said else None

    said = await eventually(complete, "managers are shown")
    for line in ("ROLE", "MANAGER", "LEASE", "nodes ", "parked ", "log "):
        assert any(each.startswith(line) for each in said.splitlines()), line
    found = json.loads(await asyncio.to_thread(run, "status", "-o", "json"))
    assert set(found) == {"position", "roles", "managers", "leases", "nodes", "parked"}
