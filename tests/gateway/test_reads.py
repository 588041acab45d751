"""Reads, time travel, the audit index and the feeds."""

import asyncio
import re
from typing import Any

import pytest

from domain.contract import Power
from projections import database
from projections.position import Position
from runtime.clock_offset import WINDOW
from tests.gateway.platform import VMS, Platform, frames
from tests.waiting import eventually


async def test_a_vm_through_its_life(api: Platform) -> None:
    made = await api.running(tags=[])
    vm = made["vm"]["id"]
    shown = await api.get(f"{VMS}/{vm}")
    assert (shown["phase"], shown["node"], shown["addresses"]) == ("running", "host-1", ["192.0.2.9"])
    assert shown["address_sources"] == [{"address": "192.0.2.9", "source": "agent"}]
    operation = await api.get(f"/v1/operations/{made['operation']['id']}")
    assert operation["status"] == "succeeded"
    assert operation["problem"] is None
    assert [event["type"].rsplit(".", 1)[-1] for event in operation["events"]][:2] == [
        "VmRequested",
        "VmScheduled",
    ]

    # as it was at each of its events, by position and by time
    events = (await api.get(f"/v1/events?vm={vm}"))["items"]
    phases = [(await api.get(f"{VMS}/{vm}?at={event['position']}"))["phase"] for event in events]
    assert phases == ["requested", "scheduled", "running"]
    for event, phase in zip(events, phases, strict=True):
        then = await api.get(f"{VMS}/{vm}?at={event['time']}")  # its + arrives as a space
        assert (then["phase"], then["position"]) == (phase, event["position"])
    early = await api.get(f"{VMS}/{vm}?at={events[0]['position'] - 1}", 404)
    assert str(events[0]["position"]) in early["detail"]

    await api.call("DELETE", f"{VMS}/{vm}")
    await api.report(vm, Power.ABSENT)

    async def gone() -> bool:
        return (await api.http.get(f"{VMS}/{vm}")).status_code == 410

    await eventually(gone, "the VM is deleted")
    assert (await api.get(f"{VMS}/{vm}", 410))["code"] == "vm_deleted"
    assert (await api.get(f"{VMS}/{vm}?at={events[-1]['position']}"))["phase"] == "running"
    assert vm not in [item["id"] for item in (await api.get(f"{VMS}?limit=500"))["items"]]


async def test_pages_hold_everything_once(api: Platform) -> None:
    names = {(await api.create(name="paged"))["vm"]["id"] for _ in range(7)}
    found: list[str] = []
    token = ""
    while True:
        page = await api.get(f"{VMS}?name=paged&limit=3{token}")
        found += [item["id"] for item in page["items"]]
        if page["next_page_token"] is None:
            break
        token = f"&page_token={page['next_page_token']}"
    assert len(found) == len(names)
    assert set(found) == names
    listed = await api.get("/v1/operations?kind=vm&limit=2")
    assert len(listed["items"]) == 2
    assert listed["items"][0]["accepted_at"] > listed["items"][1]["accepted_at"]


async def test_filters(api: Platform) -> None:
    made = await api.running(name="filtered")
    assert [vm["id"] for vm in (await api.get(f"{VMS}?name=filtered&phase=running&node=host-1"))["items"]] == [
        made["vm"]["id"]
    ]
    assert (await api.get(f"{VMS}?name=filtered&phase=stopped"))["items"] == []
    assert (await api.get(f"{VMS}?tag=none"))["items"] == []
    vms = await api.get(f"/v1/operations?vm={made['vm']['id']}")
    assert [op["verb"] for op in vms["items"]] == ["create"]


async def test_labels_find_vms(api: Platform) -> None:
    mine = (await api.create(labels={"test/reads": "a=b", "other": ""}))["vm"]["id"]
    yours = (await api.create(labels={"test/reads": "c"}))["vm"]["id"]

    async def found(label: str) -> list[str]:
        answer = await api.http.get(VMS, params={"label": label})
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    assert await found("test/reads") == [mine, yours]
    assert await found("test/reads=a=b") == [mine]
    assert await found("test/reads=") == []
    assert await found("other=") == [mine]
    await api.call("PATCH", f"{VMS}/{mine}", {"labels": {}})
    assert await found("test/reads") == [yours]


async def test_min_position_waits_and_gives_up(api: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await api.create()
    answer = await api.http.get(f"{VMS}/{made['vm']['id']}?min_position={made['position']}")
    assert answer.status_code == 200
    assert int(answer.headers["nebula-position"]) >= made["position"]
    monkeypatch.setattr("gateway.state.PATIENCE", 0.05)
    monkeypatch.setattr(api.gateway, "position", Position())  # the read models stay behind
    late = await api.http.get(f"{VMS}?min_position={made['position']}")
    assert (late.status_code, late.json()["code"]) == (503, "position_not_reached")
    assert late.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/events?vm={vm}&min_position={position}",
        f"{VMS}/{{vm}}?min_position={{position}}",
        f"{VMS}?name=behind-rows",
        "/v1/operations/{operation}",
        "/v1/operations?vm={vm}",
        "/v1/events?limit=1&vm={vm}",
        "/v1/projects/default/usage?min_position={position}",
    ],
)
async def test_rows_that_went_back_are_not_an_answer(api: Platform, path: str) -> None:
    """The gateway knows a position that the rows have no longer: Postgres lost its newest transactions in a crash.

    A lock keeps the rows where they are.
    """
    await api.get("/v1/projects/default")
    async with await database.connect(api.dsn, "test") as conn, conn.transaction():
        await conn.execute("LOCK TABLE checkpoint IN SHARE MODE")
        made = await api.create(name="behind-rows")
        api.gateway.position.set(made["position"])
        named = {"vm": made["vm"]["id"], "operation": made["operation"]["id"], "position": made["position"]}
        old = await api.http.get(path.format_map(named))
        assert (old.status_code, old.json()["code"]) == (503, "position_not_reached"), old.text
    now = await api.get(path.format_map(named))
    assert now["position"] >= made["position"]


async def test_events_by_every_filter(api: Platform) -> None:
    made = await api.running()
    vm, operation = made["vm"]["id"], made["operation"]["id"]
    events = (await api.get(f"/v1/events?vm={vm}"))["items"]
    first, last = events[0], events[-1]

    async def positions(query: str) -> list[int]:
        return [item["position"] for item in (await api.get(f"/v1/events?{query}"))["items"]]

    every = [event["position"] for event in events]
    assert await positions(f"operation={operation}&kind=vm") == every
    assert await positions(f"vm={vm}&type=VmStarted") == [last["position"]]
    assert await positions(f"vm={vm}&type=nebula.vm.VmStarted") == [last["position"]]
    assert await positions(f"vm={vm}&actor=local") == [first["position"]]
    assert await positions(f"project=default&vm={vm}&after={first['position']}") == every[1:]
    assert await positions(f"vm={vm}&from={every[1]}&to={every[1]}") == [every[1]]
    assert await positions(f"vm={vm}&from={first['time']}&to={first['time']}") == [every[0]]
    assert await positions("project=nobody") == []
    assert {"digest", "prevhash", "aggregateversion", "data", "id", "source"} <= first.keys()
    page = await api.get(f"/v1/events?vm={vm}&limit=1")
    rest = await api.get(f"/v1/events?vm={vm}&page_token={page['next_page_token']}")
    assert [item["position"] for item in rest["items"]] == every[1:]


async def test_events_wait_for_what_comes(api: Platform) -> None:
    made = await api.create()
    vm = made["vm"]["id"]
    await eventually(lambda: api.side.wanted(vm), "wanted document")
    seen = (await api.side.events("default", "vm", vm))[-1].position
    waiting = asyncio.create_task(api.get(f"/v1/events?vm={vm}&after={seen}&wait=30s"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await api.report(vm, Power.ON, boots=1)
    assert [item["type"] for item in (await waiting)["items"]] == ["nebula.vm.VmStarted"]


async def test_feeds_resume_exactly(api: Platform) -> None:
    made = await api.running()
    vm = made["vm"]["id"]
    path = f"{VMS}/{vm}/feed"
    whole = await frames(api.http, path, 3)
    assert [item["sse_event"].rsplit(".", 1)[-1] for item in whole] == [
        "VmRequested",
        "VmScheduled",
        "VmStarted",
    ]
    assert [item["prev"] for item in whole] == [0, whole[0]["position"], whole[1]["position"]]
    assert all(int(item["sse_id"]) == item["position"] for item in whole)
    resumed = await frames(api.http, path, 2, last_event_id=whole[0]["sse_id"])
    assert [item["position"] for item in resumed] == [item["position"] for item in whole[1:]]
    assert resumed[0]["prev"] == whole[0]["position"]
    after = await frames(api.http, f"/v1/projects/default/feed?after={whole[1]['position'] - 1}", 1)
    assert after[0]["position"] == whole[1]["position"]


async def test_a_feed_from_now_tells_what_comes(api: Platform) -> None:
    coming = asyncio.create_task(frames(api.http, "/v1/feed?from=now", 1))
    await asyncio.sleep(0.3)
    made = await api.create()
    first = (await coming)[0]
    assert first["position"] == made["position"]
    assert first["data"]["vm"] == made["vm"]["id"]


async def test_a_feed_lets_go_of_its_consumer(api: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.hub.LINGER", 0.0)
    for _ in range(30):
        await asyncio.gather(api.create(), *(frames(api.http, "/v1/feed?after=0", 1) for _ in range(3)))

    async def none_left() -> bool:
        # heartbeats, words of roles, answers, parked messages, refused calls, those of nodes, uses of tokens
        return len(api.gateway.nc._subs) <= 7 and api.gateway.metrics.feeds._value.get() == 0

    await eventually(none_left, "consumers are gone")


async def test_nodes_say_when_they_were_seen(api: Platform) -> None:
    await api.side.heartbeat("host-1")

    async def seen() -> bool:
        return (await api.get("/v1/nodes/host-1"))["last_seen"] is not None

    await eventually(seen, "heartbeat heard")
    assert [node["id"] for node in (await api.get("/v1/nodes"))["items"]] == ["host-1"]


async def test_a_node_whose_clock_is_off_shows_until_it_is_set(api: Platform) -> None:
    async def beats(ahead: float) -> None:
        for _ in range(WINDOW):
            await api.side.heartbeat("host-1", ahead=ahead)

    async def node() -> Any:
        return await api.get("/v1/nodes/host-1")

    async def warned() -> Any:
        found = await node()
        return found if found["clock_warning"] else None

    await beats(300)
    found = await eventually(warned, "the clock is seen to be ahead")
    assert 290 < found["clock_offset_seconds"] <= 300
    assert "s ahead of the platform's" in found["clock_warning"] and "NTP" in found["clock_warning"]
    metrics = (await api.http.get("/metrics")).text
    assert re.search(r'^nebula_node_clock_offset_seconds\{node="host-1"\} (29|300)', metrics, re.MULTILINE)

    async def health() -> Any:
        body = (await api.http.get("/healthz")).json()
        return body if body["clocks_off"] else None

    body = await eventually(health, "healthz tells it")
    (off,) = body["clocks_off"]
    assert off["node"] == "host-1" and 290 < off["offset_seconds"] <= 300
    assert body["status"] != "ok"
    await beats(-300)

    async def behind() -> Any:
        return ((await node())["clock_offset_seconds"] or 0) < -290

    await eventually(behind, "the clock was set, and is behind now")
    assert "s behind the platform's" in (await node())["clock_warning"]
    await beats(0)

    async def right() -> bool:
        return (await node())["clock_warning"] is None and not (await api.http.get("/healthz")).json()["clocks_off"]

    await eventually(right, "the clock is right, and healthz says so")


async def test_the_api_describes_itself(api: Platform) -> None:
    document = await api.get("/v1/openapi.json")
    create = document["paths"]["/v1/projects/{project}/vms"]["post"]
    reference = create["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    body = document["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    assert {"name", "image"} <= set(body["required"])
    assert [set(way["required"]) for way in body["anyOf"]] == [{"vcpus", "memory_mib", "disk_gib"}, {"flavor"}]
    text = (await api.http.get("/v1/openapi.json")).text
    import re

    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in document["components"]["schemas"], name


async def test_health_and_metrics(api: Platform) -> None:
    await api.create()
    health = await api.get("/healthz")
    assert health["status"] == "ok"
    assert {"nats", "postgres", "lag"} <= health.keys()
    text = (await api.http.get("/metrics")).text
    assert 'nebula_commands_total{kind="vm",outcome="accepted",verb="create"}' in text
