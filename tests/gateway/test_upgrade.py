"""Reads through a gateway go on, without an error or a gap, while read models of a new version are made."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eventstore.vault.vault import Vault
from projections import copies, database, upgrade
from projections.books import MODELS, Models
from projections.database import SCHEMA
from projections.model import versions
from projections.position import Position
from projections.runner import Runner
from runtime.local.servers import Postgres
from tests.gateway.platform import VMS, Platform, platform
from tests.waiting import eventually


def raised(*names: str) -> Models:
    """A next version of these read models, with one more column in the table that each is named after."""
    return tuple(
        replace(model, version=model.version + 1, ddl=f"{model.ddl}ALTER TABLE {model.name} ADD COLUMN colour text;")
        if model.name in names
        else model
        for model in MODELS
    )


ALL = raised(*(model.name for model in MODELS))
SOME = raised("vms", "seeds")
"""The tables of the log and of operations move from the one copy to the other."""


class Reader:
    """Reads the same things again and again, and keeps what was wrong with an answer."""

    def __init__(self, api: Platform, known: set[str], seen: int) -> None:
        self.api = api
        self.tags = known
        self.positions: dict[str, int] = {}
        self.after = seen
        self.events: list[int] = []
        self.rounds = 0
        self.wrong: list[str] = []

    async def get(self, path: str) -> Any:
        answer = await self.api.http.get(path)
        if answer.status_code != 200:
            self.wrong.append(f"{path}: {answer.status_code} {answer.text}")
            return None
        position = int(answer.headers["Nebula-Position"])
        if position < self.positions.get(path, 0):
            self.wrong.append(f"{path}: position {position} after {self.positions[path]}")
        self.positions[path] = position
        return answer.json()

    def expect(self, what: str, found: bool) -> None:
        if not found:
            self.wrong.append(what)

    async def round(self, vm: str, operation: str) -> None:
        """Lists, resources, an operation, and the events behind those that were read before."""
        expected = set(self.tags)
        tags = await self.get("/v1/tags?limit=500")
        self.expect("a tag is missing", tags is None or {item["id"] for item in tags["items"]} >= expected)
        vms = await self.get(VMS)
        self.expect("the VM is missing", vms is None or vm in [item["id"] for item in vms["items"]])
        for path in ("/v1/projects", "/v1/images", "/v1/nodes", "/v1/operations?limit=1"):
            page = await self.get(path)
            self.expect(f"{path} is empty", page is None or page["items"] != [])
        one = await self.get(f"{VMS}/{vm}")
        self.expect("another phase", one is None or one["phase"] == "running")
        ended = await self.get(f"/v1/operations/{operation}")
        self.expect("another status", ended is None or ended["status"] == "succeeded")
        await self.get("/v1/projects/default")
        items = (await self.get(f"/v1/events?after={self.after}&limit=500") or {"items": []})["items"]
        if items:
            self.events += [item["position"] for item in items]
            self.after = self.events[-1]
        self.rounds += 1

    async def write(self) -> None:
        """A tag, which the next list has to hold."""
        answer = await self.api.call("POST", "/v1/tags", {"name": f"during {len(self.tags)}"})
        self.expect(f"a tag is refused: {answer.text}", answer.status_code == 202)
        self.tags.add(answer.json()["tag"]["id"])

    async def run(self, vm: str, operation: str) -> None:
        while True:
            await self.write()
            await self.round(vm, operation)


@pytest.mark.parametrize("models", [ALL, SOME], ids=["all of them", "some of them"])
async def test_reads_go_on_while_read_models_are_replaced(
    models: Models, tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, go = asyncio.Event(), asyncio.Event()
    catch_up = upgrade.catch_up

    async def slowly(*arguments: Any) -> None:
        await catch_up(*arguments)
        built.set()
        await go.wait()

    monkeypatch.setattr(upgrade, "catch_up", slowly)
    async with platform(tmp_path, postgres) as api:
        made = await api.running(name="web-1")
        begun = await api.side.store.last_position()
        reader = Reader(api, set(), begun)
        assert await building(api) == (None, -1)
        vault = Vault.of(api.side.nc, tmp_path / "master.key")
        new = Position()
        tasks = [
            asyncio.create_task(reader.run(made["vm"]["id"], made["operation"]["id"])),
            asyncio.create_task(Runner(api.side.nc, api.dsn, vault, new, models).run()),
        ]
        try:
            await asyncio.wait_for(built.wait(), 60)
            health, metric = await eventually(is_building(api), "health and numbers tell how far it is")
            assert 0 < health <= metric <= await api.side.store.last_position()
            await more_rounds(reader)
            go.set()
            await eventually(is_live(api, models), "the new version is live")
            await more_rounds(reader)
            await eventually(is_built(api), "nothing is told of a build that is over")
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each for each in ended if not isinstance(each, asyncio.CancelledError)] == []
        assert reader.wrong == []
        log = await api.side.store.read(begun, None, 10_000)
        assert reader.events == [each.position for each in log][: len(reader.events)]
        assert len(reader.events) > 0


async def building(api: Platform) -> tuple[int | None, int]:
    """How far a copy is that will replace the live one: as `/healthz` and as the metrics tell it."""
    health = (await api.http.get("/healthz")).json()
    text = (await api.http.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("nebula_projection_building_position ")]
    return health["postgres"].get("building", {}).get("position"), int(float(line.split()[1]))


def is_built(api: Platform) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return await building(api) == (None, -1)

    return look


def is_building(api: Platform) -> Callable[[], Awaitable[Any]]:
    async def check() -> Any:
        found = await building(api)
        return found if found[0] is not None and found[1] >= 0 else None

    return check


async def more_rounds(reader: Reader) -> None:
    goal = reader.rounds + 3
    await eventually(lambda: reader.rounds >= goal or reader.wrong != [], "three rounds")


def is_live(api: Platform, models: Models) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        async with await database.connect(api.dsn, "test") as conn:
            return await copies.stored_versions(conn, SCHEMA) == versions(models)

    return check
