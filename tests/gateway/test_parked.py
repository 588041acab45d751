"""What the gateway shows of messages that are no events, and the way out."""

from typing import Any

from eventstore.log.envelope import Context, Ref, seal
from eventstore.log.judge import Tip
from runtime import subjects
from runtime.bus.quick_client import QuickClient
from tests.eventstore.log import noted
from tests.gateway.platform import VMS, Platform, frames
from tests.integrity.malformed import lay, strays
from tests.waiting import eventually


async def test_a_malformed_message_degrades_until_somebody_has_seen_it(api: Platform) -> None:
    made = await api.running()
    vm = made["vm"]["id"]
    before = (await api.side.store.history(Ref("default", "vm", vm)))[-1].position
    assert (await api.get("/healthz"))["status"] == "ok"
    laid = []
    nc = QuickClient()
    await nc.connect(api.side.nats.url)
    tip = Tip(Ref("default", "vm", vm))
    for stray in strays(tip.ref, tip, noted("n")).values():
        laid.append(await lay(nc, tip.ref.subject.encode(), stray))
    await nc.close()

    async def degraded() -> Any:
        health = await api.get("/healthz")
        return health["status"] == "degraded" and health["parked"] == len(laid)

    await eventually(degraded, "degraded")
    page = await api.get("/v1/parked?source=log&limit=5")
    first = [item["key"] for item in page["items"]]
    assert len(first) == 5
    page = await api.get(f"/v1/parked?source=log&limit=500&page_token={page['next_page_token']}")
    others = [item["key"] for item in page["items"]]  # in the order in which they were parked, by whoever was first
    assert sorted(map(int, first + others)) == laid
    assert page["next_page_token"] is None
    one = await api.get(f"/v1/parked/log/{laid[0]}")
    assert (one["error"], one["message"]["data_base64"]) == ("the message has no headers", "aGk=")
    assert f'nebula_parked_messages{{source="log"}} {len(laid)}.0' in (await api.http.get("/metrics")).text

    past = await api.get(f"{VMS}/{vm}?at={laid[-1]}")
    assert (past["id"], past["version"]) == (vm, (await api.get(f"{VMS}/{vm}?at={before}"))["version"])
    items = (await api.get(f"/v1/events?vm={vm}&limit=500&min_position={laid[-1]}"))["items"]
    assert {item["position"] for item in items} >= set(laid)
    fed = await frames(api.http, f"{VMS}/{vm}/feed?after={laid[0] - 1}", len(laid))
    assert [item["position"] for item in fed] == laid

    stopped = await api.call("POST", f"{VMS}/{vm}/stop", {"force": True})
    assert stopped.status_code == 202
    refused = await api.call("POST", f"/v1/parked/log/{laid[0]}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "parked_not_retried")
    assert (await api.call("POST", f"/v1/parked/log/{laid[0]}/drop", {})).json()["code"] == "invalid_request"
    for position in laid:
        for _ in range(2):
            answer = await api.call("POST", f"/v1/parked/log/{position}/drop", {"reason": "seen"})
            assert (answer.status_code, answer.json()["status"], answer.json()["reason"]) == (200, "dropped", "seen")

    async def well() -> bool:
        health = await api.get("/healthz")
        return (health["status"], health["parked"]) == ("ok", 0)

    await eventually(well, "nothing is open any more")
    assert (await api.get("/v1/parked"))["items"] == []
    dropped = (await api.get("/v1/parked?source=log&status=dropped&limit=500"))["items"]
    assert {int(item["key"]) for item in dropped} >= set(laid)  # other tests share this platform


async def test_a_malformed_message_is_a_step_of_no_operation(api: Platform) -> None:
    made = await api.running()
    ref, operation = Ref("default", "vm", made["vm"]["id"]), made["operation"]["id"]
    before = await api.get(f"/v1/operations/{operation}")
    named = {"ce-operationid": operation, "ce-type": "nebula.vm.VmFailed"}
    headers, body = seal(ref, 99, "e" * 64, noted("n"), Context(actor="mallory"))
    strange = (({**headers, **named}, body), (named, b"hi"), ({**headers, **named, "ce-time": "x"}, body))
    for each, content in strange:
        stored = await api.side.nc.jetstream().publish(ref.subject, content, headers=each)
        key = str(stored.seq)
        await eventually(lambda key=key: parked(api, key), "parked")  # type: ignore[misc]
        assert await api.get(f"/v1/operations/{operation}?min_position={stored.seq}") == before
        (listed,) = [each for each in (await api.get("/v1/operations?limit=50"))["items"] if each["id"] == operation]
        assert listed == before
        (shown,) = (await api.get(f"/v1/events?after={stored.seq - 1}&to={stored.seq}"))["items"]
        assert shown["operationid"] == operation
        await api.call("POST", f"/v1/parked/log/{key}/drop", {"reason": "seen"})


async def parked(api: Platform, key: str) -> bool:
    return (await api.http.get(f"/v1/parked/log/{key}")).status_code == 200


async def test_what_is_not_parked_is_not_found(api: Platform) -> None:
    for path in ("/v1/parked/log/999999", "/v1/parked/log/%00", "/v1/parked/a.b/%E2%82%AC"):
        assert (await api.get(path, 404))["code"] == "parked_not_found"
    assert (await api.get("/v1/parked?status=x", 400))["code"] == "invalid_parameter"


async def test_a_report_is_put_back(api: Platform) -> None:
    stored = await api.side.nc.jetstream().publish(subjects.report("host-1", "vm", "x"), b"{}")

    async def listed() -> Any:
        items = (await api.get("/v1/parked?source=reports"))["items"]
        return [item["key"] for item in items]

    await eventually(listed, "parked")
    assert await listed() == [str(stored.seq)]
    answer = await api.call("POST", f"/v1/parked/reports/{stored.seq}/retry")
    assert (answer.status_code, answer.json()["status"]) == (200, "retried")

    async def again() -> Any:
        keys = await listed()
        return keys and keys != [str(stored.seq)] and keys

    (key,) = await eventually(again, "judged again")
    await api.call("POST", f"/v1/parked/reports/{key}/drop", {"reason": "seen"})
