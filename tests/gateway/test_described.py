"""What the description promises that schemathesis does not find by chance: the words of refusals, odd requests."""

import ast
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

import gateway
import runtime.http
from gateway.http.problems import PASSED_ON
from gateway.openapi import statuses
from runtime import subjects
from tests.gateway.platform import VMS, Platform
from tests.waiting import eventually


def refusals() -> set[tuple[int, str]]:
    """The statuses and codes that stand in the code of the gateway and its listener."""
    found = set()
    for room in (gateway, runtime.http):
        for path in Path(room.__path__[0]).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Problem", "Refused"):
                    match node.args[:2]:
                        case [ast.Constant(int(status)), ast.Constant(str(code))]:
                            found.add((status, code))
    return found


def test_every_refusal_is_described() -> None:
    found = refusals()
    assert len(found) > 25
    for status, code in found:
        _, codes = statuses.MEANING[status]
        assert not codes or code in codes, (status, code)
    assert set(statuses.MEANING) >= PASSED_ON


async def test_every_operation_names_its_statuses(api: Platform) -> None:
    document = await api.get("/v1/openapi.json")
    components = document["components"]["responses"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert "default" not in operation["responses"], (method, path)
            if "requestBody" in operation:  # whoever reads a body refuses one of another type, or too large
                assert {"400", "413", "415", "422"} <= operation["responses"].keys(), (method, path)
            for status, response in operation["responses"].items():
                assert HTTPStatus(int(status))
                name = response.get("$ref", "").rsplit("/", 1)[-1]
                assert not name or name in components
            for parameter in operation["parameters"]:
                assert parameter["schema"], (method, path, parameter["name"])


async def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_more_parameters_than_a_feed_has(api: Platform) -> None:
    asked = "&".join(f"p{number}=1" for number in range(40))
    assert await refused(await api.http.get(f"/v1/feed?ticket=x&{asked}")) == (400, "invalid_parameter")


@pytest.mark.parametrize("path", ["/v1/tickets", "/v1/parked/log/none/retry", "/v1/parked/log/none/drop"])
async def test_bodies_are_read_in_one_way(api: Platform, path: str) -> None:
    plain = {"content-type": "text/plain"}
    assert await refused(await api.http.post(path, content=b"{}", headers=plain)) == (415, "unsupported_media_type")
    twice = b'{"path": "/v1/feed", "path": "/v1/feed"}'
    json = {"content-type": "application/json"}
    assert await refused(await api.http.post(path, content=twice, headers=json)) == (400, "duplicate_name")


async def test_a_whole_number_is_one_however_it_is_written(api: Platform) -> None:
    made = await api.create(vcpus=2.0, memory_mib=512.0, disk_gib=4.0)
    assert made["vm"]["vcpus"] == 2
    answer = await api.call("POST", VMS, {"name": "x", "image": "base", "vcpus": 1.5, "memory_mib": 64, "disk_gib": 1})
    assert await refused(answer) == (422, "invalid_request")


async def test_an_empty_last_event_id_is_no_position(api: Platform) -> None:
    answer = await api.http.get("/v1/feed", headers={"Last-Event-ID": ""})
    assert await refused(answer) == (400, "invalid_parameter")


async def test_a_call_that_is_wrong_as_a_websocket_too(api: Platform) -> None:
    assert (await api.http.get(f"{VMS}/none/vnc")).status_code == 404
    vm = (await api.create())["vm"]["id"]
    assert await refused(await api.http.get(f"{VMS}/{vm}/console?force=maybe")) == (400, "invalid_parameter")
    assert await refused(await api.http.get(f"{VMS}/{vm}/console?force=true")) == (426, "upgrade_required")


async def test_a_node_that_refuses_with_a_status_nobody_knows(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]

    async def answer(msg: Any) -> None:
        await msg.respond(b'{"problem": {"code": "teapot", "status": 418, "detail": "short and stout"}}')

    subscription = await api.side.nc.subscribe(subjects.ask("host-1", "guest"), cb=answer)
    await api.side.nc.flush()
    found = await refused(await api.http.get(f"{VMS}/{vm}/guest"))
    await subscription.unsubscribe()
    assert found == (502, "node_answer_invalid")


async def test_commands_on_the_bus_have_one_spelling_too(api: Platform) -> None:
    await api.side.ok("system", "tag", "create", {"tag": "spelled", "name": "Cafe\u0301"})

    async def there() -> bool:
        return (await api.http.get("/v1/tags/spelled")).status_code == 200

    await eventually(there, "tag is there")
    assert (await api.get("/v1/tags/spelled"))["name"] == "Caf\u00e9"
    answer = await api.side.ask("system", "tag", "create", {"tag": "marked", "name": "\u0301"})
    assert answer["problem"]["status"] == 422


async def test_a_node_is_cordoned_after_its_seed_url_was_set(api: Platform) -> None:
    url = "http://192.0.2.1:8775/"
    assert (await api.call("PATCH", "/v1/nodes/host-1", {"seed_url": url})).status_code == 202
    for verb in ("cordon", "uncordon"):
        answer = await api.call("POST", f"/v1/nodes/host-1/{verb}")
        assert answer.status_code == 202, answer.text
