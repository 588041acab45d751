"""A log of version 10b4582, with every type of event that it had: this version shows of it what that one showed.

README.md says how the log was made. What the HTTP API of that version said stands beside it, and is compared field by
field. Fields that are new may say anything.
"""

import asyncio
import json
import lzma
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.base import Foreign
from domain.vm.values import SIZED, Phase
from eventstore.integrity import transfer
from eventstore.integrity.audit import verify_log
from eventstore.integrity.checkpoints import Keys, public_keys
from eventstore.log.envelope import Ref
from eventstore.log.upcast import all_types
from projections import rebuild
from projections.books import TABLES
from runtime import subjects
from runtime.local.servers import Postgres
from runtime.text import urls
from tests.gateway.platform import served
from tests.handlers.deciders import deciding
from tests.handlers.platform import WriteSide
from tests.projections.cloud import Cloud, cloud

ARCHIVE = Path(__file__).with_name("from-10b4582.tar.xz")
MOMENTS = Path(__file__).with_name("moments-10b4582.json.xz")

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Changed:
    """A field that has another meaning since: why, and whether what it says now fits what was shown then."""

    why: str
    fits: Callable[[Document, Document], bool]


def own_steps(operation: Document) -> list[Document]:
    return [step for step in operation["events"] if step["type"].split(".")[1] == operation["kind"]]


def last_own_step(then: Document, now: Document) -> bool:
    others = {step["position"] for step in then["events"]} - {step["position"] for step in own_steps(then)}
    right = own_steps(then)[-1]["position"] if then["position"] in others else then["position"]
    return bool(now["position"] == right)


def of_this_boot(then: Document, now: Document) -> bool:
    """A stop and a new boot end it, and a lost VM may have been stopped. Where neither was, it is what it was."""
    never_ended = then["boots"] <= 1 and then["phase"] in set(SIZED) - {Phase.LOST}
    right = (then["ready_at"],) if never_ended else (None, then["ready_at"])
    return now["ready_at"] in right and now["first_ready_at"] == then["ready_at"]


#: By what is shown and its field.
CHANGED: Mapping[tuple[str, str], Changed] = {
    ("vms", "ready"): Changed(
        "of the present boot (docs/upgrades.md)",
        lambda then, now: now["ready"] == (then["ready"] and now["ready_at"] is not None),
    ),
    ("vms", "ready_at"): Changed("of the present boot; `first_ready_at` is what it was", of_this_boot),
    ("vms", "addresses"): Changed(
        "of the present boot, so a VM that is not up has none (docs/http-api.md)",
        lambda then, now: now["addresses"] == (then["addresses"] if then["phase"] in SIZED else []),
    ),
    ("images", "source"): Changed(
        "credentials in a URL are secrets (docs/images.md)",
        lambda then, now: now["source"] == urls.shown(then["source"]) and "hunter2" not in now["source"],
    ),
    ("operations", "events"): Changed(
        "those of its resource, not of its node's books (decision 26)",
        lambda then, now: now["events"] == own_steps(then),
    ),
    ("operations", "position"): Changed("of the last of these events (decision 26)", last_own_step),
    ("nodes", "last_seen"): Changed("heard by the gateway, and not in the log", lambda then, now: True),
}


@dataclass
class Upgraded:
    """This version on the old log: what was shown of it `then`, and `now` from read models made from nothing."""

    cloud: Cloud
    http: httpx.AsyncClient
    keys: Keys
    then: Document
    now: Document


@pytest.fixture(scope="module")
async def old(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[Upgraded]:
    folder = tmp_path_factory.mktemp("upgrade")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    then = json.loads((folder / "shown.json").read_text())
    keys = public_keys(folder / "checkpoint.pub")
    async with cloud(folder / "home", postgres) as made:
        await transfer.restore(made.nc, folder / "log.nebula", keys=keys)
        running = asyncio.create_task(made.runner().run())
        try:
            await made.caught_up()
            side = WriteSide(made.home, made.nats, made.nc)
            async with served(side, made.dsn) as (_, url), httpx.AsyncClient(base_url=url, timeout=90) as http:
                yield Upgraded(made, http, keys, then, await shown(http, then))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def shown(http: httpx.AsyncClient, then: Document) -> Document:
    """All that was asked then, asked again."""
    return {
        "lists": {path: await items(http, path) for path in then["lists"]},
        "ids": {path: [item["id"] for item in await items(http, path)] for path in then["ids"]},
        "one": {path: await one(http, path) for path in then["one"]},
        "past": {path: (await one(http, path))[1] for path in then["past"] if deleted(then, path)},
    }


def deleted(then: Document, path: str) -> bool:
    """Whether a path shows the past of a VM that has no present."""
    return bool(then["one"][path.partition("?")[0]][0] == 410)


async def one(http: httpx.AsyncClient, path: str) -> tuple[int, Any]:
    answer = await http.get(path)
    return answer.status_code, answer.json()


async def items(http: httpx.AsyncClient, path: str) -> list[Document]:
    """All items of a list, page by page."""
    found: list[Document] = []
    token = ""
    while True:
        status, page = await one(http, f"{path}{'&' if '?' in path else '?'}limit=500{token}")
        assert status == 200, page
        found += page["items"]
        if page["next_page_token"] is None:
            return found
        token = f"&page_token={page['next_page_token']}"


def differences(path: str, then: Document, now: Document) -> Iterator[str]:
    """The fields that say something else than they should."""
    parts = path.partition("?")[0].split("/")
    kind = parts[4] if len(parts) > 4 else parts[2]
    for field, said in then.items():
        changed = CHANGED.get((kind, field))
        if field not in now or not (changed.fits(then, now) if changed else covers(now[field], said)):
            yield f"{path} {field}: {said!r} is now {now.get(field)!r}"


def covers(now: Any, then: Any) -> bool:
    """Whether all that was said is said now, at any depth."""
    if isinstance(then, dict) and isinstance(now, dict):
        return all(name in now and covers(now[name], value) for name, value in then.items())
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return all(covers(one, other) for one, other in zip(now, then, strict=True))
    return bool(then == now)


async def test_the_log_verifies_with_the_digests_it_had(old: Upgraded) -> None:
    report = (await verify_log(old.cloud.nc, keys=old.keys)).document()
    assert report["findings"] == []
    if report["last"] == old.then["position"]:  # else the last test here has gone on from it
        assert {name: report[name] for name in old.then["verify"]} == old.then["verify"]


async def test_every_type_of_event_is_known(old: Upgraded) -> None:
    events = await old.cloud.store.read(0, None, old.then["position"])
    assert [(event.position, event.type) for event in events if isinstance(event.event, Foreign)] == []
    types = {event.type for event in events}
    assert len(types) == 52 and types <= all_types().keys()


async def test_the_read_models_are_what_a_replay_makes(old: Upgraded) -> None:
    found = await rebuild.verify(old.cloud.nc, old.cloud.dsn, old.cloud.vault)
    assert found.tables == () and found.rows > len(old.then["lists"]["/v1/events"])


def test_every_list_shows_what_it_showed(old: Upgraded) -> None:
    wrong: list[str] = []
    for path, then in old.then["lists"].items():
        now = old.now["lists"][path]
        assert [item["id"] for item in now] == [item["id"] for item in then], path
        for before, after in zip(then, now, strict=True):
            wrong += differences(f"{path}/{before['id']}", before, after)
    assert wrong == []


def test_every_filter_finds_what_it_found(old: Upgraded) -> None:
    """Only the operations of a project are more than then: those of its images belong to it too."""
    then, now = old.then["ids"], old.now["ids"]
    assert then.keys() == now.keys()
    more = {path: [id_ for id_ in now[path] if id_ not in then[path]] for path in then}
    assert {path: [id_ for id_ in now[path] if id_ in then[path]] for path in then} == then
    found = more.pop("/v1/operations?project=shop")
    assert found
    assert set(found) <= set(then["/v1/operations?kind=image"])
    assert not any(more.values())


def test_every_resource_is_what_it_was(old: Upgraded) -> None:
    wrong: list[str] = []
    for path, (status, then) in old.then["one"].items():
        assert old.now["one"][path][0] == status, path
        now = old.now["one"][path][1]
        wrong += differences(path, then if status == 200 else {"code": then["code"]}, now)
    assert wrong == []


def test_a_deleted_vm_shows_its_past(old: Upgraded) -> None:
    wrong: list[str] = []
    for path, now in old.now["past"].items():
        wrong += differences(path, old.then["past"][path], now)
    assert wrong == [] and old.now["past"] != {}


async def test_every_event_made_of_its_resource_what_it_made_then(old: Upgraded) -> None:
    """Of all kinds, also where later events have made something else of it since."""
    events = await old.cloud.store.read(0, None, old.then["position"])
    states: dict[str, Any] = {}
    views: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    for event, then in zip(events, json.loads(lzma.decompress(MOMENTS.read_bytes())), strict=True):
        kind, subject = event.ref.kind, event.subject
        state: Any = TABLES[kind].of.evolve(states.get(subject), event.event)
        states[subject] = state
        views[subject] = {**views.get(subject, {}), **then}
        now = TABLES[kind].render(state, event.version, event.position)
        wrong += differences(f"/v1/{kind}s/{event.id}", views[subject], now)
    assert wrong == []


async def test_handlers_go_on_from_it(old: Upgraded) -> None:
    """A command on an old VM is decided by its old state, and its event follows the last one of the old version."""
    vms = [vm for path, found in old.then["lists"].items() if path.endswith("/vms") for vm in found]
    running = next(vm for vm in vms if vm["phase"] == "running" and vm["pending"] is None)
    stopped = next(vm for vm in vms if vm["phase"] == "stopped" and vm["pending"] is None)
    async with deciding(old.cloud.nats.url, old.cloud.home):
        for vm, method, path, body, event in (
            (running, "POST", "/stop", {"force": True}, "nebula.vm.VmStopRequested"),
            (stopped, "PATCH", "", {"labels": {"kept": "yes"}}, "nebula.vm.VmChanged"),
            (stopped, "POST", "/start", {}, "nebula.vm.VmStartRequested"),
        ):
            url = f"/v1/projects/{vm['project']}/vms/{vm['id']}"
            before = await old.cloud.store.history(Ref(vm["project"], "vm", vm["id"]))
            answer = await old.http.request(method, f"{url}{path}", json=body)
            assert answer.status_code == 202, answer.text
            after = await old.cloud.store.history(Ref(vm["project"], "vm", vm["id"]))
            assert after[:-1] == before and after[-1].type == event
            assert after[-1].version == before[-1].version + 1 and after[-1].previous == before[-1].digest
            assert (await one(old.http, url))[1]["version"] == after[-1].version
        refused = await old.http.post(f"/v1/projects/{running['project']}/vms/{running['id']}/pause")
        assert refused.json()["code"] == "operation_pending"
        assert (await repeated(old))["replayed"]
    assert (await verify_log(old.cloud.nc, keys=old.keys)).findings == []


async def repeated(old: Upgraded) -> Document:
    """The answer to a command that the old version accepted, sent once more."""
    tagged = next(event for event in old.then["lists"]["/v1/events"] if event["type"] == "nebula.vm.VmTagged")
    project, _, vm = tagged["subject"].split(".")[2:]
    args = {"vm": vm, "tags": tagged["data"]["tags"]}
    said = {"operation": tagged["operationid"], "fingerprint": tagged["data"]["fingerprint"]}
    context = {"actor": tagged["actor"], "grants": [["operator", None]], **said}
    body = json.dumps({"args": args, "context": context}).encode()
    reply = await old.cloud.nc.request(subjects.command(project, "vm", "tag"), body, timeout=10)
    found: Document = json.loads(reply.data)["ok"]
    return found
