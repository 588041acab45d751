"""The log for people: the newest first, one event with its proof, counts in ranges."""

from typing import Any

import pytest

from domain.contract import Power, ReportError
from eventstore.integrity import proof
from projections import marks as rows, times
from tests.gateway.platform import VMS, Platform
from tests.waiting import eventually


async def positions(api: Platform, query: str) -> list[int]:
    return [item["position"] for item in (await api.get(f"/v1/events?{query}"))["items"]]


async def test_the_newest_first(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    every = await positions(api, f"vm={vm}")
    assert await positions(api, f"vm={vm}&order=asc") == every
    assert await positions(api, f"vm={vm}&order=desc") == every[::-1]
    assert await positions(api, f"id={vm.upper()}&order=desc&after={every[0]}") == every[:0:-1]
    page = await api.get(f"/v1/events?vm={vm}&order=desc&limit=2")
    token = page["next_page_token"]
    rest = await api.get(f"/v1/events?vm={vm}&order=desc&limit=2&page_token={token}")
    assert [item["position"] for item in page["items"] + rest["items"]] == every[::-1]
    assert rest["next_page_token"] is None
    assert (await api.http.get(f"/v1/events?vm={vm}&page_token={token}")).status_code == 400, "of another order"
    newest = await positions(api, "order=desc&limit=5")
    assert newest == sorted(newest, reverse=True)
    assert (await api.http.get("/v1/events?order=up")).status_code == 400


async def test_events_of_one_call(api: Platform) -> None:
    mine = {"X_Request_Id": "call-of-a-page"}
    answer = await api.call("POST", "/v1/tags", {"name": "Of a call"}, **mine)
    assert answer.status_code == 202, answer.text
    (found,) = (await api.get("/v1/events?request=call-of-a-page"))["items"]
    assert found["position"] == answer.json()["position"]
    assert (found["words"], found["why"]) == ("Tag created", "local asked for it (request call-of-a-page)")


async def test_events_in_words(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    items = (await api.get(f"/v1/events?vm={vm}"))["items"]
    assert [item["words"] for item in items] == [
        "VM requested, from image base",
        "VM placed on node host-1",
        "VM started on node host-1",
    ]
    assert items[1]["why"] == "placement found a node for it"
    assert items[2]["why"] == "node host-1 reported it"


async def test_an_operation_from_its_command_to_the_guest(api: Platform) -> None:
    """What the events of an operation do not say is found from their positions."""
    made = await api.running()
    vm, operation = made["vm"]["id"], made["operation"]["id"]
    await api.side.ok("default", "vm", "guest-ready", {"vm": vm, "hostname": "web-1", "boots": 1}, actor=f"guest:{vm}")
    steps = (await api.get(f"/v1/events?operation={operation}"))["items"]
    assert [step["type"].rpartition(".")[2] for step in steps] == ["VmRequested", "VmScheduled", "VmStarted"]
    assert steps[2]["causationid"].startswith(f"report.{vm}:")
    scheduled, started = steps[1]["position"], steps[2]["position"]
    promises = (await api.get(f"/v1/events?id=host-1&type=CapacityReserved&to={scheduled}&order=desc"))["items"]
    promise = next(one for one in promises if one["data"]["vm"] == vm)
    assert steps[0]["position"] < promise["position"] < scheduled
    assert (await api.get(f"{VMS}/{vm}?at={scheduled}"))["node"] == "host-1"

    async def ready() -> Any:
        return (await api.get(f"/v1/events?vm={vm}&type=VmGuestReady&after={started}"))["items"]

    (found,) = await eventually(ready, "the guest is ready")
    assert found["why"] == "the guest said so"


# ── one event ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def whole(api: Platform, position: int) -> Any:
    return await api.get(f"/v1/events/{position}")


async def test_one_event_and_what_proves_it(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    items = (await api.get(f"/v1/events?vm={vm}"))["items"]
    found = [await whole(api, item["position"]) for item in items]
    for item, shown in zip(items, found, strict=True):
        chain = shown.pop("chain")
        assert shown == item
        assert (chain["valid"], chain["fault"], chain["mac"], chain["linked"]) == (True, None, "right", True)
    chains = [(await whole(api, item["position"]))["chain"] for item in items]
    links = [{"position": item["position"], "digest": item["digest"]} for item in items]
    assert [chain["previous"] for chain in chains] == [None, *links[:-1]]
    assert [chain["following"] for chain in chains] == [*links[1:], None]
    assert [chain["confirmed"] for chain in chains] == [True, True, None]


async def test_a_signed_checkpoint_covers_it(api: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    position = (await api.running())["position"]

    async def covered() -> Any:
        return (await whole(api, position))["chain"]["checkpoint"]

    checkpoint = await eventually(covered, "a checkpoint covers it", seconds=60)
    assert checkpoint["position"] >= position
    assert (checkpoint["signed"], checkpoint["matches"]) == (True, True)
    monkeypatch.setattr(api.gateway, "checkpoint_keys", api.side.home / "none")
    assert (await covered())["signed"] is None
    monkeypatch.setattr(proof, "MOST_READ", 0)
    assert (await covered())["matches"] is None


async def test_a_message_of_a_stranger_is_no_event(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    last = (await api.get(f"/v1/events?vm={vm}"))["items"][-1]
    stored = await api.side.nc.jetstream().publish(last["subject"], b"{}", headers={"ce-type": "nebula.vm.VmStarted"})

    async def there() -> Any:
        answer = await api.http.get(f"/v1/events/{stored.seq}")
        return answer.json() if answer.status_code == 200 else None

    found = await eventually(there, "the message is in the index")
    chain = found["chain"]
    assert (chain["valid"], chain["mac"], chain["linked"]) == (False, "missing", False)
    assert chain["fault"]["code"] == "shape"
    assert "handlers did not write" in found["words"] and found["why"] is None
    assert (await whole(api, last["position"]))["chain"]["following"] is None
    await api.call("POST", f"{VMS}/{vm}/pause")
    after = (await api.get(f"/v1/events?vm={vm}&type=VmPauseRequested"))["items"][0]
    assert (await whole(api, after["position"]))["chain"]["previous"]["position"] == last["position"]
    assert (await whole(api, last["position"]))["chain"]["following"]["position"] == after["position"]


@pytest.mark.parametrize("position", ["0", "-1", "x", "01", "99999999", "9223372036854775808", "1.5"])
async def test_where_no_event_is(api: Platform, position: str) -> None:
    assert (await api.get(f"/v1/events/{position}", 404))["code"] == "event_not_found"


# ── counts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def counted(api: Platform, query: str = "") -> Any:
    found = await api.get(f"/v1/marks?{query}")
    assert all(item["from"] <= item["first"] <= item["to"] and item["events"] for item in found["items"])
    return found


async def every(api: Platform, query: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    after = 0
    while True:
        page = (await api.get(f"/v1/events?limit=500&after={after}&{query}"))["items"]
        items += page
        if len(page) < 500:
            return items
        after = page[-1]["position"]


@pytest.mark.parametrize("buckets", [1, 7, 200])
async def test_counts_are_those_of_the_log(api: Platform, buckets: int) -> None:
    vm = (await api.running())["vm"]["id"]
    for query in ("", "project=default", f"vm={vm}"):
        for _ in range(2):  # what is known from before counts as well
            found = await counted(api, f"buckets={buckets}&{query}")
            events = [event for event in await every(api, query) if event["position"] <= found["position"]]
            assert len(found["items"]) <= buckets
            assert sum(item["events"] for item in found["items"]) == len(events)
            for item in found["items"]:
                inside = [event for event in events if item["from"] <= event["position"] <= item["to"]]
                assert (len(inside), inside[0]["position"]) == (item["events"], item["first"])
                assert "time" not in inside[0] or times.utc(inside[0]["time"]) == item["time"]


async def test_counts_of_a_part(api: Platform) -> None:
    await api.create()
    whole_log = await counted(api)
    end = whole_log["position"]
    first, last = end // 3, end // 2
    found = await counted(api, f"from={first}&to={last}&buckets=3")
    assert sum(item["events"] for item in found["items"]) == last - first + 1
    assert (found["items"][0]["from"], found["items"][-1]["to"]) == (first, last)
    event = (await api.get(f"/v1/events?after={last - 1}&limit=1"))["items"][0]
    by_time = await counted(api, f"to={event['time'].replace('+', '%2B')}&buckets=1")
    assert abs(by_time["items"][-1]["to"] - last) < 20, "clocks differ, and some events have the same time"
    assert all(item["from"] > end for item in (await counted(api, f"from={end + 1}"))["items"])


async def test_failures_are_counted(api: Platform) -> None:
    vm = (await api.create())["vm"]["id"]
    wanted = await eventually(lambda: api.side.wanted(vm), "wanted document")
    await api.side.report(wanted, Power.OFF, error=ReportError(code="disk_failed", detail="x"))

    async def failed() -> bool:
        found = await counted(api, f"vm={vm}")
        return bool(sum(item["failures"] for item in found["items"]) == 1)

    await eventually(failed, "the failure is counted")


async def test_old_ranges_are_counted_once(api: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    real = rows.marks

    async def noted(pool: Any, scope: Any, first: int, last: int, *more: Any) -> Any:
        asked.append((first, last))
        return await real(pool, scope, first, last, *more)

    monkeypatch.setattr(rows, "marks", noted)
    api.gateway.marks.__init__()  # type: ignore[misc]
    first = await counted(api, "buckets=10")
    await api.create()
    second = await counted(api, "buckets=10")
    if second["width"] != first["width"]:  # the log has just become too long for the width before
        del asked[0]
        first = second
        await api.create()
        second = await counted(api, "buckets=10")
    assert second["width"] == first["width"]
    assert asked[0][0] == 1 and asked[1][0] > asked[0][1] - first["width"]


@pytest.mark.parametrize("query", ["buckets=0", "buckets=201", "buckets=x", "buckets=1.5", "from=x", "to=99999999999"])
async def test_what_makes_no_range(api: Platform, query: str) -> None:
    assert (await api.http.get(f"/v1/marks?{query}")).status_code == 400
