"""Positions that the log has not reached are refused everywhere, with its end; those that it has are not."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.events import feed
from gateway.openapi.described import positions
from gateway.table.reads import READS
from gateway.table.vms import VMS as VMS_PATH
from projections.position import Position
from tests.gateway.platform import VMS, Platform, frames
from tests.waiting import eventually

FUTURE = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
#: Where a position can be given, as (path, name of a parameter or a header).
PLACES = [
    (read.path, name)
    for read in READS
    for name in (*positions(read.path, read.parameters), *(("Last-Event-ID",) if read.path.endswith("/feed") else ()))
]


@pytest.fixture(scope="module")
async def vm(api: Platform) -> str:
    id_ = (await api.create())["vm"]["id"]
    await eventually(lambda: api.side.has("default", "vm", id_, "VmScheduled"), "its creation is done")
    return f"{VMS}/{id_}"


@pytest.fixture(scope="module")
async def there(api: Platform, vm: str) -> dict[str, str]:
    """Something of each kind, by the name that it has in paths."""
    tag = (await api.call("POST", "/v1/tags", {"name": "Positions"})).json()
    flavor = {"name": "Positions", "vcpus": 1, "memory_mib": 64, "disk_gib": 1}
    flavor_id = (await api.call("POST", "/v1/flavors", flavor)).json()["flavor"]["id"]
    ids = {"flavor": flavor_id, "project": "default", "image": "base", "node": "host-1", "vm": vm.rsplit("/", 1)[-1]}
    for kind, path in (("user", "/v1/users"), ("service_account", "/v1/service-accounts")):
        ids[kind] = (await api.call("POST", path, {"name": "Positions"})).json()[kind]["id"]
    token = await api.call("POST", "/v1/tokens", {"name": "Positions", "principal": f"user:{ids['user']}"})
    ids |= {"token": token.json()["token"]["id"], "enrollment": "host-1"}
    return {**ids, "tag": tag["tag"]["id"], "operation": tag["operation"]["id"], "event": str(tag["position"])}


def test_every_position_of_every_call_is_tried() -> None:
    assert len(PLACES) > 25
    for path in ("/v1/feed", "/v1/events", "/v1/tags", f"{VMS_PATH}/{{vm}}", f"{VMS_PATH}/{{vm}}/vnc"):
        assert path in [place for place, _ in PLACES]


async def asked(api: Platform, path: str, name: str, value: str) -> Any:
    if name == "Last-Event-ID":
        return await api.http.get(path, headers={name.encode(): value.encode()})
    return await api.http.get(path, params={name: value})


@pytest.mark.parametrize(("path", "name"), PLACES)
async def test_a_position_beyond_the_end_is_refused(api: Platform, there: dict[str, str], path: str, name: str) -> None:
    """Whether what it is asked of is there, or cannot be."""
    end = await api.gateway.store.last_position()
    nothing = dict.fromkeys(there, "NO SUCH THING")
    for beyond, ids in ((end + 40, there), (end + 1_000_000, nothing), (2**63 - 1, there)):
        answer = await asked(api, path.format(**ids), name, str(beyond))
        document = answer.json()
        assert (answer.status_code, document["code"]) == (400, "invalid_parameter"), answer.text
        assert document["errors"][0]["field"] == name
        now = await api.gateway.store.last_position()
        said = int(document["detail"].rsplit(" ", 1)[-1])
        assert end <= said <= now
        assert int(answer.headers["nebula-position"]) == said


@pytest.mark.parametrize(("path", "name"), PLACES)
async def test_what_is_no_position_is_refused(api: Platform, there: dict[str, str], path: str, name: str) -> None:
    for bad in ("-1", "+1", "1.5", "x", "0x10", "1e3", str(2**63), "9" * 40, "\u0663", "\uff11", "\u00b2"):
        answer = await asked(api, path.format(**there), name, bad)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter"), (bad, answer.text)
        assert answer.json()["errors"][0]["field"] == name


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        ("{vm}", {"at": "1"}, "min_position"),
        ("/v1/feed", {"Last-Event-ID": "1"}, "after"),
        ("{vm}/feed", {"Last-Event-ID": "1"}, "after"),
        ("/v1/feed", {"from": "now"}, "Last-Event-ID"),
        ("/v1/events", {"from": "1"}, "to"),
        ("{vm}/console", {"force": "true"}, "min_position"),
    ],
)
async def test_a_position_is_judged_where_another_one_counts(
    api: Platform, vm: str, path: str, query: dict[str, str], name: str
) -> None:
    beyond = str(await api.gateway.store.last_position() + 40)
    given = {**query, name: beyond}
    headers = {"Last-Event-ID": given.pop("Last-Event-ID")} if "Last-Event-ID" in given else {}
    answer = await api.http.get(path.format(vm=vm), params=given, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, name), answer.text


@pytest.mark.parametrize("kind", ["console", "vnc"])
async def test_a_websocket_to_a_position_beyond_the_end_is_refused(api: Platform, vm: str, kind: str) -> None:
    beyond = await api.gateway.store.last_position() + 40
    offer = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    answer = await api.http.get(
        f"{vm}/{kind}?min_position={beyond}", headers={**offer, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    )
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "min_position"), answer.text


@pytest.mark.parametrize(("path", "name"), [("{vm}", "at"), ("/v1/events", "from"), ("/v1/events", "to")])
async def test_a_time_in_the_future_is_refused(api: Platform, vm: str, path: str, name: str) -> None:
    answer = await asked(api, path.format(vm=vm), name, FUTURE)
    assert answer.status_code == 400, answer.text
    assert "is in the future: the log ends at position" in answer.json()["detail"]
    now = await asked(api, path.format(vm=vm), name, datetime.now(UTC).isoformat())
    assert now.status_code == 200


async def test_a_time_that_an_event_has_is_not_in_the_future(
    api: Platform, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of handlers may be ahead of this one."""
    (newest,) = (await api.get(f"/v1/events?after={await api.gateway.store.last_position() - 1}"))["items"]

    class Behind(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Behind":
            return cls.fromtimestamp(time.time() - 7200, tz)

    monkeypatch.setattr("gateway.state.datetime", Behind)
    assert (await asked(api, vm, "at", newest["time"])).status_code == 200
    assert (await asked(api, "/v1/events", "to", newest["time"])).status_code == 200
    assert (await asked(api, vm, "at", FUTURE)).status_code == 400


async def test_the_end_itself_is_not_beyond_it(api: Platform, vm: str) -> None:
    end = await api.gateway.store.last_position()
    for path, name in (("{vm}", "at"), ("/v1/events", "after"), ("/v1/events", "to"), ("/v1/tags", "min_position")):
        assert (await asked(api, path.format(vm=vm), name, str(end))).status_code == 200
    assert (await asked(api, "/v1/events", "from", str(end + 1))).status_code == 200  # from the next one on


async def test_what_was_just_acknowledged_is_never_beyond_the_end(
    api: Platform, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the server that is asked for the end lags behind the one that stored it."""
    made = await api.create()

    async def lagging() -> int:
        return int(made["position"]) - 1

    monkeypatch.setattr(api.gateway.store, "last_position", lagging)
    position = str(made["position"])
    path = f"{VMS}/{made['vm']['id']}"
    for where, name in ((path, "at"), ("/v1/events", "after"), (VMS, "min_position")):
        answer = await asked(api, where, name, position)
        assert answer.status_code == 200, answer.text
    coming = asyncio.create_task(frames(api.http, "/v1/projects/default/feed", 1, last_event_id=position))
    later = await api.create()
    assert (await coming)[0]["prev"] == int(position)
    assert later["position"] > int(position)


async def test_a_page_token_of_another_list_is_refused(api: Platform, vm: str) -> None:
    for _ in range(3):
        await api.create(name="tokens")
    token = (await api.get(f"{VMS}?name=tokens&limit=1"))["next_page_token"]
    assert (await api.http.get(f"{VMS}?name=tokens&limit=2&page_token={token}")).status_code == 200
    for other in (f"{VMS}?name=others", VMS, "/v1/operations", "/v1/events", "/v1/tags", f"{VMS}?phase=running"):
        joint = "&" if "?" in other else "?"
        answer = await api.http.get(f"{other}{joint}page_token={token}")
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "page_token"), other


async def test_a_page_token_beyond_the_end_is_refused(api: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    await asyncio.gather(*(api.create(name="beyond") for _ in range(3)))
    tokens = [
        (path, (await api.get(f"{path}limit=1"))["next_page_token"])
        for path in (f"{VMS}?name=beyond&", "/v1/operations?", "/v1/events?")
    ]

    async def shorter() -> int:  # another log, which ends before what the tokens name
        return 0

    monkeypatch.setattr(api.gateway.store, "last_position", shorter)
    monkeypatch.setattr(api.gateway.writes, "newest", 0)
    monkeypatch.setattr(api.gateway, "position", Position())
    for path, token in tokens:
        answer = await api.http.get(f"{path}page_token={token}")
        assert (answer.status_code, answer.json()["detail"]) == (400, "page_token: the log ends at position 0"), path


async def raw(api: Platform, path: str, count: int, **headers: str) -> list[str]:
    """The first frames of a feed as they came."""
    found: list[str] = []
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    frame = ""
    async with api.http.stream("GET", path, headers=sent) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line:
                frame += line + "\n"
            elif frame:
                found.append(frame)
                frame = ""
                if len(found) == count:
                    return found
    raise AssertionError(found)


async def items_to(api: Platform, path: str, last: int, **headers: str) -> list[dict[str, Any]]:
    """The items of a feed up to a position. Others may have happened before it."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["position"] < last:
        found = await frames(api.http, path, len(found) + 1, **headers)
    return found


def id_of(frame: str) -> int:
    (found,) = [line.removeprefix("id: ") for line in frame.splitlines() if line.startswith("id: ")]
    return int(found)


@pytest.mark.parametrize("path", ["/v1/feed", "/v1/projects/default/feed", "{vm}/feed"])
async def test_the_first_frame_says_where_to_resume(api: Platform, vm: str, path: str) -> None:
    path = path.format(vm=vm)
    (first,) = await raw(api, f"{path}?from=now", 1)
    start = id_of(first)
    assert "data:" not in first
    made = (await api.http.patch(vm, json={"labels": {"at": str(start)}})).json()  # while nobody listens
    items = await items_to(api, path, made["position"], last_event_id=str(start))
    assert [item["prev"] for item in items] == [start, *(item["position"] for item in items[:-1])]
    assert items[-1]["position"] == made["position"]
    assert id_of((await raw(api, f"{path}?after={start}", 1))[0]) == start
    assert id_of((await raw(api, path, 1, last_event_id=str(start)))[0]) == start
    assert id_of((await raw(api, path, 1))[0]) == 0


async def test_signs_of_life_name_what_need_not_be_read_again(
    api: Platform, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 0.2)
    path = f"{vm}/feed?from=now"
    (first,) = await raw(api, path, 1)
    elsewhere = await api.create()  # nothing of this VM
    frames_ = await raw(api, f"{vm}/feed?after={id_of(first)}", 2)
    alive = id_of(frames_[1])
    assert alive >= elsewhere["position"]
    change = (await api.http.patch(vm, json={"labels": {"alive": "yes"}})).json()
    (item,) = await frames(api.http, f"{vm}/feed", 1, last_event_id=str(alive))
    assert (item["prev"], item["position"]) == (alive, change["position"])


async def test_prev_is_the_item_before_whatever_signs_of_life_said(
    api: Platform, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT", 0.2)
    start = id_of((await raw(api, f"{vm}/feed?from=now", 1))[0])
    coming = asyncio.create_task(raw(api, f"{vm}/feed?after={start}", 4))
    await asyncio.sleep(0)
    await api.create()
    change = (await api.http.patch(vm, json={"labels": {"prev": "yes"}})).json()
    items = [frame for frame in await coming if "data:" in frame]
    if items:  # (it may have come behind the fourth frame)
        assert f'"prev":{start}' in items[0]
        assert id_of(items[0]) == change["position"]
