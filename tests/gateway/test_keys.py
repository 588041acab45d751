"""One key is one operation is one resource; a repeat shows the operation's own record."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from domain import vm
from domain.contract import Power, ReportError
from eventstore.log.envelope import Context, Ref
from eventstore.log.store import Change, Conflict
from tests.gateway.platform import SPEC, VMS, Platform, served
from tests.waiting import eventually

VM = {"name": "web-1", "image": "base", **SPEC}
PATHS = {"vm": VMS, "project": "/v1/projects", "tag": "/v1/tags", "image": "/v1/images"}


def body(kind: str, id_: str) -> dict[str, Any]:
    match kind:
        case "vm":
            return {**VM, "id": id_}
        case "image":
            return {"id": id_, "source": "/nowhere/at/all.raw"}
        case _:
            return {"id": id_, "name": id_}


def ids(kind: str, count: int) -> list[str]:
    return [str(uuid.uuid4()) if kind == "vm" else f"k-{uuid.uuid4().hex[:12]}" for _ in range(count)]


@pytest.fixture(scope="module")
async def pair(api: Platform) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Two gateways, with two handlers processes behind them."""
    second = await api.side.start()
    async with served(api.side, api.dsn) as (_, url), httpx.AsyncClient(base_url=url, timeout=90) as other:
        yield [api.http, other]
    second.terminate()
    await second.wait()
    api.side.processes.remove(second)


def post(http: httpx.AsyncClient, path: str, what: Any, key: str) -> Any:
    return http.post(path, json=what, headers={"Idempotency-Key": key})


async def exists(api: Platform, kind: str, id_: str) -> bool:
    system = {"vm": "default", "project": id_}
    return bool(await api.side.events(system.get(kind, "system"), kind, id_))


@pytest.mark.parametrize("kind", PATHS)
async def test_one_key_with_many_ids_makes_one_resource(
    api: Platform, pair: list[httpx.AsyncClient], kind: str
) -> None:
    for _ in range(3):
        key, chosen = str(uuid.uuid4()), ids(kind, 8)
        answers = await asyncio.gather(
            *(post(pair[n % 2], PATHS[kind], body(kind, id_), key) for n, id_ in enumerate(chosen))
        )
        won = [id_ for id_, answer in zip(chosen, answers, strict=True) if answer.status_code == 202]
        assert len(won) == 1, [answer.text for answer in answers]
        lost = [answer for answer in answers if answer.status_code != 202]
        assert {(a.status_code, a.json()["code"]) for a in lost} == {(422, "idempotency_key_reused")}
        assert {a.json()["errors"][0]["field"] for a in lost} == {"Idempotency-Key"}
        assert [id_ for id_ in chosen if await exists(api, kind, id_)] == won
        again = [await post(http, PATHS[kind], body(kind, won[0]), key) for http in pair]
        assert {a.headers["idempotent-replayed"] for a in again} == {"true"}


@pytest.mark.parametrize("first", ["chosen", "derived"])
async def test_one_key_with_and_without_an_id(api: Platform, pair: list[httpx.AsyncClient], first: str) -> None:
    key = str(uuid.uuid4())
    bodies = [{**VM, "id": str(uuid.uuid4())}, VM]
    if first == "derived":
        bodies.reverse()
    made = await post(pair[0], VMS, bodies[0], key)
    assert made.status_code == 202, made.text
    other = await post(pair[1], VMS, bodies[1], key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert made.json()["vm"]["id"] in other.json()["detail"]


async def test_with_and_without_an_id_at_once(api: Platform, pair: list[httpx.AsyncClient]) -> None:
    for _ in range(5):
        key = str(uuid.uuid4())
        answers = await asyncio.gather(
            *(post(pair[n % 2], VMS, {**VM, "id": str(uuid.uuid4())} if n % 3 else VM, key) for n in range(8))
        )
        made = {a.json()["vm"]["id"] for a in answers if a.status_code == 202}
        assert len(made) == 1
        assert {a.status_code for a in answers} == {202, 422}


async def test_the_id_that_follows_from_a_key_cannot_be_taken_beside_it(api: Platform) -> None:
    key, tag = str(uuid.uuid4()), f"k-{uuid.uuid4().hex[:12]}"
    assert (await api.call("POST", "/v1/tags", {"name": tag}, idempotency_key=key)).status_code == 202
    (claim,) = [e for e in await api.side.store.read(0, "nebula.events.*.operation.*") if tag in e.body.decode()]
    taken = await api.call("POST", VMS, {**VM, "id": claim.ref.id})
    assert (taken.status_code, taken.json()["code"]) == (409, "vm_exists")
    again = await api.call("POST", "/v1/tags", {"name": tag}, idempotency_key=key)
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("kind", ["vm", "tag", "project", "image"])
async def test_a_refused_create_leaves_the_key_free(api: Platform, kind: str) -> None:
    key, (taken, free) = str(uuid.uuid4()), ids(kind, 2)
    if kind == "image":  # one that is available: a rejected id may be registered anew
        taken = "base"
    else:
        assert (await api.call("POST", PATHS[kind], body(kind, taken))).status_code == 202
    refused = await api.call("POST", PATHS[kind], body(kind, taken), idempotency_key=key)
    assert (refused.status_code, refused.json()["code"]) == (409, f"{kind}_exists")
    made = await api.call("POST", PATHS[kind], body(kind, free), idempotency_key=key)
    assert made.status_code == 202, made.text


async def test_a_used_key_says_so_whatever_else_is_wrong(api: Platform) -> None:
    key, (used, taken) = str(uuid.uuid4()), ids("tag", 2)
    await api.call("POST", "/v1/tags", body("tag", taken))
    assert (await api.call("POST", "/v1/tags", body("tag", used), idempotency_key=key)).status_code == 202
    other = await api.call("POST", "/v1/tags", body("tag", taken), idempotency_key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    keyed = await api.call("POST", VMS, VM, idempotency_key=key)
    assert keyed.status_code == 202, "another path is another scope"
    worse = await api.call("POST", VMS, {**VM, "image": "nosuch"}, idempotency_key=key)
    assert (worse.status_code, worse.json()["code"]) == (422, "idempotency_key_reused")


# ── a repeat shows the record ───────────────────────────────────────────────────────────────────────────────────────


async def same(api: Platform, path: str, what: Any, key: str, status: str) -> dict[str, Any]:
    """Ask again: the operation as the record has it, byte for byte as it is read."""
    answer = await api.call("POST", path, what, idempotency_key=key, x_request_id="another")
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (202, "true"), answer.text
    shown: dict[str, Any] = answer.json()["operation"]
    assert shown["status"] == status
    read = await api.http.get(f"/v1/operations/{shown['id']}?min_position={answer.json()['position']}")
    assert answer.text.startswith('{"operation":' + read.text + ","), "not byte for byte the same"
    return shown


async def test_the_first_answer_is_the_record(api: Platform) -> None:
    key = str(uuid.uuid4())
    first = await api.call("POST", VMS, VM, idempotency_key=key, x_request_id="r-1")
    made = first.json()["operation"]
    assert [event["type"] for event in made["events"]] == ["nebula.vm.VmRequested"]
    wanted = await eventually(lambda: api.side.wanted(made["resource"]), "wanted document")
    await api.side.report(wanted, Power.ON, boots=1)
    await api.get(f"/v1/operations/{made['id']}?wait=20s")
    later = await same(api, VMS, VM, key, "succeeded")
    for field in ("id", "request_id", "accepted_at", "actor", "verb"):
        assert later[field] == made[field]
    assert later["events"][0] == made["events"][0]


async def test_a_create_that_a_deletion_cancelled(api: Platform) -> None:
    key = str(uuid.uuid4())
    unplaced = {**VM, "region": "nowhere"}
    first = (await api.call("POST", VMS, unplaced, idempotency_key=key, x_request_id="r-1")).json()
    gone = await api.call("DELETE", f"{VMS}/{first['vm']['id']}?wait=20s")
    assert gone.json()["operation"]["status"] == "succeeded"
    again = await same(api, VMS, unplaced, key, "cancelled")
    assert (again["id"], again["request_id"]) == (first["operation"]["id"], "r-1")
    assert again["accepted_at"] == first["operation"]["accepted_at"]
    assert again["problem"]["code"] == "operation_cancelled"


async def test_a_create_that_failed(api: Platform) -> None:
    key = str(uuid.uuid4())
    made = (await api.call("POST", VMS, VM, idempotency_key=key)).json()
    wanted = await eventually(lambda: api.side.wanted(made["vm"]["id"]), "wanted document")
    await api.side.report(wanted, Power.ABSENT, error=ReportError(code="no_disk", detail="no space\0left"))
    failed = await api.get(f"/v1/operations/{made['operation']['id']}?wait=20s")
    assert failed["status"] == "failed"
    assert await same(api, VMS, VM, key, "failed") == failed


async def test_an_operation_that_timed_out(api: Platform) -> None:
    key = str(uuid.uuid4())
    unplaced = {**VM, "region": "nowhere"}
    made = (await api.call("POST", VMS, unplaced, idempotency_key=key)).json()["operation"]
    store, ref = api.side.store, Ref("default", "vm", made["resource"])

    async def late() -> bool:
        """What the manager of deadlines says a day later."""
        loaded = await store.load(ref, vm.evolve)
        event = vm.VmOperationTimedOut(at=datetime.now(UTC), operation=made["id"], verb="create")
        try:
            await store.append([Change(loaded.tip, [event])], Context(actor="system:deadlines"))
        except Conflict:
            return False
        return True

    await eventually(late, "timed out")
    again = await same(api, VMS, unplaced, key, "timed_out")
    assert (again["accepted_at"], again["problem"]["code"]) == (made["accepted_at"], "operation_timed_out")


@pytest.mark.parametrize("kind", ["tag", "project"])
async def test_a_create_after_a_deletion_and_a_new_create(api: Platform, kind: str) -> None:
    key, (id_,) = str(uuid.uuid4()), ids(kind, 1)
    first = (await api.call("POST", PATHS[kind], body(kind, id_), idempotency_key=key)).json()["operation"]
    deleted = await api.call("DELETE", f"{PATHS[kind]}/{id_}", idempotency_key=key)
    assert deleted.status_code == 202, deleted.text
    assert deleted.json()["operation"]["status"] == "succeeded"
    assert await same(api, PATHS[kind], body(kind, id_), key, "succeeded") == first
    assert (await api.call("POST", PATHS[kind], body(kind, id_), idempotency_key=f"{key}-2")).status_code == 202
    assert await same(api, PATHS[kind], body(kind, id_), key, "succeeded") == first
    again = await api.call("DELETE", f"{PATHS[kind]}/{id_}", idempotency_key=key)
    assert again.json()["operation"] == deleted.json()["operation"]


async def test_an_image_whose_registration_ended(api: Platform) -> None:
    key, (id_,) = str(uuid.uuid4()), ids("image", 1)
    made = (await api.call("POST", "/v1/images", body("image", id_), idempotency_key=key)).json()["operation"]
    ended = await api.get(f"/v1/operations/{made['id']}?wait=20s")
    assert ended["status"] == "failed"
    assert await same(api, "/v1/images", body("image", id_), key, "failed") == ended
    await api.call("DELETE", f"/v1/images/{id_}")
    assert await same(api, "/v1/images", body("image", id_), key, "failed") == ended
    resized = await api.running()
    path = f"{VMS}/{resized['vm']['id']}/resize"
    first = await api.call("POST", path, {"memory_mib": 1024}, idempotency_key=key)
    assert await same(api, path, {"memory_mib": 1024}, key, "succeeded") == first.json()["operation"]
