"""A repeat is answered by the operation's record, whatever has happened since to those who gave the first answer."""

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from eventstore.integrity import transfer
from eventstore.integrity.checkpoints import fingerprint, signing_key
from eventstore.integrity.notary import Notary
from eventstore.vault.vault import Vault
from projections.position import Position
from projections.runner import Runner
from runtime.local.servers import Postgres, create_database
from runtime.tasks.tasks import end
from tests.gateway.platform import SPEC, VMS, Platform, served
from tests.handlers.platform import write_side
from tests.waiting import eventually

VM = {"name": "web-1", "image": "base", "region": "nowhere", **SPEC}
#: What was answered to each call that had a key: the call, and the operation as it was read when it had ended.
Answered = Mapping[str, tuple[str, str, Any, str]]


async def call(http: httpx.AsyncClient, method: str, path: str, body: Any, key: str) -> httpx.Response:
    return await http.request(method, path, json=body, headers={"Idempotency-Key": key})


@pytest.fixture(scope="module")
async def answered(api: Platform) -> Answered:
    """Creations, changes and deletions of three kinds, all of which have ended."""
    tag, project = (f"r-{uuid.uuid4().hex[:12]}" for _ in range(2))
    vm = str(uuid.uuid4())
    calls = [
        ("POST", "/v1/tags", {"name": tag}),
        ("PATCH", f"/v1/tags/{tag}", {"name": "renamed"}),
        ("POST", "/v1/projects", {"id": project, "name": "P", "tags": [tag]}),
        ("POST", VMS, {**VM, "id": vm, "user_data": "#cloud-config\n"}),
        ("DELETE", f"{VMS}/{vm}", None),
        ("PATCH", f"/v1/projects/{project}", {"tags": []}),
        ("DELETE", f"/v1/tags/{tag}", None),
    ]
    found = {}
    for method, path, body in calls:
        key = str(uuid.uuid4())
        answer = await call(api.http, method, path, body, key)
        assert answer.status_code == 202, answer.text
        found[key] = ((method, path, body), answer.json()["operation"]["id"])
    return {key: (*said, await read(api.http, id_)) for key, (said, id_) in found.items()}


async def read(http: httpx.AsyncClient, operation: str) -> str:
    """An operation that has ended, as it is read."""
    answer = await http.get(f"/v1/operations/{operation}?wait=30s")
    assert answer.json()["ended_at"] is not None, answer.text
    return answer.text


async def repeated(http: httpx.AsyncClient, answered: Answered, *, judged: bool = True) -> None:
    """All calls again: the very same operations. With other words they are refused, where that can be told."""
    for key, (method, path, body, operation) in answered.items():
        again = await call(http, method, path, body, key)
        assert (again.status_code, again.headers.get("idempotent-replayed")) == (202, "true"), again.text
        assert again.text.startswith('{"operation":' + operation + ","), "not byte for byte the same"
        if body is not None and judged:
            other = await call(http, method, path, {**body, "name": "another"}, key)
            assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused"), other.text


async def test_after_handlers_were_killed_and_started_again(api: Platform, answered: Answered) -> None:
    await api.side.stop_all()
    await api.side.start()
    await repeated(api.http, answered)


@asynccontextmanager
async def another_gateway(api: Platform, postgres: Postgres) -> AsyncIterator[httpx.AsyncClient]:
    """With read models of its own, made from the log."""
    dsn = await create_database(postgres, f"test_{uuid.uuid4().hex}")
    vault = Vault.of(api.side.nc, api.side.home / "master.key")
    running = asyncio.create_task(Runner(api.side.nc, dsn, vault, Position()).run())
    try:
        async with served(api.side, dsn) as (gateway, url), httpx.AsyncClient(base_url=url, timeout=90) as http:
            assert await gateway.position.reach(await api.side.store.last_position(), 60)
            yield http
    finally:
        await end([running])


async def test_by_another_gateway_and_after_a_rebuild_of_the_read_models(
    api: Platform, answered: Answered, postgres: Postgres
) -> None:
    async with another_gateway(api, postgres) as http:
        for *_, operation in answered.values():
            id_ = httpx.Response(200, text=operation).json()["id"]
            assert await read(http, id_) == operation
        await repeated(http, answered)


async def test_from_a_log_that_was_restored_elsewhere(api: Platform, answered: Answered, tmp_path: Path) -> None:
    """Without the vault nobody can tell whether it is the same request: nothing is done in either case."""
    key = signing_key(api.side.home / "checkpoint.key")
    notary = Notary(api.side.nc, key)

    async def nothing_is_left() -> bool:  # also when the handlers' own notary was first
        return await notary.step() is None and await notary.step() is None

    await eventually(nothing_is_left, "the log is signed to its end")
    with (tmp_path / "log").open("wb") as file:
        await transfer.export(api.side.nc, file)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy2(api.side.home / "event.keys", elsewhere)  # another test may have changed the key
    async with write_side(elsewhere) as side:
        await transfer.restore(side.nc, tmp_path / "log", keys={fingerprint(key.public_key()): key.public_key()})
        await side.start()
        async with served(side, api.dsn) as (_, url), httpx.AsyncClient(base_url=url, timeout=90) as http:
            await repeated(http, answered, judged=False)
