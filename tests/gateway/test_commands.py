"""Commands over HTTP: accepted, repeated, refused, waited for."""

import asyncio
import json
import uuid

import pytest

from domain import contract
from domain.access import Access, Grant, Role
from domain.base import Resources
from domain.contract import CommandRequest, Power, ReportError
from gateway.access.identity import LOCAL, Identity
from gateway.commands.actions import ACTIONS
from gateway.commands.requested import Requested
from gateway.state import Caller
from tests.gateway.platform import SPEC, VMS, Platform
from tests.projections.cloud import SSH_KEY
from tests.waiting import eventually


async def test_create_answers_with_operation_and_vm(api: Platform) -> None:
    answer = await api.call("POST", VMS, {"name": "web-1", "image": "base", **SPEC}, x_request_id="r-1")
    assert answer.status_code == 202
    made = answer.json()
    assert answer.headers["location"] == f"/v1/operations/{made['operation']['id']}"
    assert answer.headers["x-request-id"] == "r-1"
    assert int(answer.headers["nebula-position"]) == made["position"] == made["vm"]["position"]
    assert made["vm"]["phase"] == "requested"
    assert made["operation"]["status"] == "accepted"
    assert made["operation"]["request_id"] == "r-1"
    assert made["vm"]["pending"]["operation"] == made["operation"]["id"]


async def test_what_was_written_can_be_read_at_once(api: Platform) -> None:
    for _ in range(5):
        made = await api.create()
        shown = await api.get(f"{VMS}/{made['vm']['id']}")
        assert shown["version"] >= made["vm"]["version"]
        assert (await api.get(f"/v1/operations/{made['operation']['id']}"))["verb"] == "create"


async def test_the_same_key_is_the_same_operation(api: Platform) -> None:
    key = str(uuid.uuid4())
    body = {"name": "web-1", "image": "base", **SPEC}
    first = await api.call("POST", VMS, body, idempotency_key=key)
    again = await api.call("POST", VMS, dict(reversed(body.items())), idempotency_key=key)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["operation"]["id"] == first.json()["operation"]["id"]
    assert again.json()["vm"]["id"] == first.json()["vm"]["id"]

    other = await api.call("POST", VMS, {**body, "vcpus": 2}, idempotency_key=key)
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_key_reused"


async def test_the_same_key_for_another_project_name_is_refused(api: Platform) -> None:
    key = str(uuid.uuid4())
    first = await api.call("POST", "/v1/projects", {"name": "Key One"}, idempotency_key=key)
    assert first.status_code == 202
    again = await api.call("POST", "/v1/projects", {"name": "Key One"}, idempotency_key=key)
    assert again.headers["idempotent-replayed"] == "true"
    other = await api.call("POST", "/v1/projects", {"name": "Key Two"}, idempotency_key=key)
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_key_reused"


async def test_many_at_once_with_one_key_make_one_vm(api: Platform) -> None:
    key = str(uuid.uuid4())
    body = {"name": "web-1", "image": "base", **SPEC, "user_data": "#cloud-config\n"}
    answers = await asyncio.gather(*(api.call("POST", VMS, body, idempotency_key=key) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["vm"]["id"] for answer in answers}) == 1
    assert len({answer.json()["operation"]["id"] for answer in answers}) == 1


async def test_a_chosen_id_is_used_once(api: Platform) -> None:
    id_ = str(uuid.uuid4())
    assert (await api.create(id=id_))["vm"]["id"] == id_
    again = await api.call("POST", VMS, {"id": id_, "name": "web-1", "image": "base", **SPEC})
    assert again.status_code == 409
    assert again.json()["code"] == "vm_exists"


async def test_wait_returns_when_it_ended(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    stopping = asyncio.create_task(api.call("POST", f"{VMS}/{vm}/stop?wait=30s"))

    async def told() -> bool:
        wanted = await api.side.wanted(vm)
        return wanted is not None and wanted.desired == "off"

    await eventually(told, "the node is told")
    await api.report(vm, Power.OFF)
    answer = await stopping
    assert answer.status_code == 200
    assert answer.json()["operation"]["status"] == "succeeded"
    assert answer.json()["vm"]["phase"] == "stopped"
    types = [event["type"] for event in answer.json()["operation"]["events"]]
    assert types == ["nebula.vm.VmStopRequested", "nebula.vm.VmStopped"]


async def test_wait_gives_up_with_202(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    answer = await api.call("POST", f"{VMS}/{vm}/stop?wait=0.2s")
    assert answer.status_code == 202
    assert answer.json()["operation"]["status"] == "accepted"


async def test_a_vm_is_paused_suspended_and_resumed(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    steps = [
        ("pause", Power.PAUSED, "paused"),
        ("suspend", Power.SUSPENDED, "suspended"),
        ("resume", Power.ON, "running"),
    ]
    for verb, power, phase in steps:
        asked = await api.call("POST", f"{VMS}/{vm}/{verb}")
        assert asked.status_code == 202, asked.text
        assert asked.json()["vm"]["pending"]["verb"] == verb

        async def told(verb: str = verb, phase: str = phase) -> bool:
            wanted = await api.side.wanted(vm)
            return wanted is not None and (wanted.desired, wanted.resume) == (
                "on" if verb == "resume" else phase,
                verb == "resume",
            )

        await eventually(told, f"the node is told to {verb}")
        await api.report(vm, power, boots=1)
        ended = await api.get(f"/v1/operations/{asked.json()['operation']['id']}?wait=30s")
        assert (ended["verb"], ended["status"]) == (verb, "succeeded")
        assert (await api.get(f"{VMS}/{vm}"))["phase"] == phase
    assert [item["id"] for item in (await api.get(f"{VMS}?phase=paused"))["items"]] == []


async def test_one_patch_changes_what_is_said_of_a_vm(api: Platform) -> None:
    made = await api.create(labels={"team": "blue", "stage": ""}, protected=True)
    vm = made["vm"]["id"]
    assert (made["vm"]["labels"], made["vm"]["protected"]) == ({"stage": "", "team": "blue"}, True)
    refused = await api.call("DELETE", f"{VMS}/{vm}")
    assert (refused.status_code, refused.json()["code"]) == (409, "delete_protected")
    key = str(uuid.uuid4())
    body = {"name": "db-1", "labels": {"team": "a=b é"}, "protected": False}
    changed = await api.call("PATCH", f"{VMS}/{vm}", body, idempotency_key=key)
    assert (changed.status_code, changed.json()["operation"]["status"]) == (202, "succeeded")
    again = await api.call("PATCH", f"{VMS}/{vm}", body, idempotency_key=key)
    assert again.json()["operation"]["id"] == changed.json()["operation"]["id"]
    found = (await api.get(f"{VMS}?name=db-1"))["items"]
    assert [(item["id"], item["labels"], item["tags"]) for item in found] == [(vm, {"team": "a=b é"}, [])]
    assert (await api.get(f"{VMS}/{vm}"))["version"] == changed.json()["vm"]["version"]


async def test_a_running_vm_is_resized_at_its_next_start(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    resized = await api.call("POST", f"{VMS}/{vm}/resize", {"memory_mib": 1024})
    assert (resized.status_code, resized.json()["operation"]["status"]) == (202, "succeeded")
    shown = resized.json()["vm"]
    assert (shown["memory_mib"], shown["running_spec"]["memory_mib"], shown["pending_resize"]) == (1024, 512, True)
    assert (await api.get(f"{VMS}/{vm}"))["pending_resize"] is True
    await api.call("POST", f"{VMS}/{vm}/restart", {"force": True})
    await eventually(lambda: boots(api, vm, 2), "the node is told")
    await api.report(vm, Power.ON, boots=2, size=Resources(vcpus=1, memory_mib=1024, disk_gib=4))
    await eventually(lambda: grown(api, vm), "it runs with its new size")
    for body in ({}, {"vcpus": 0}, {"memory_mib": "much"}, {"cpus": 2}):
        assert (await api.call("POST", f"{VMS}/{vm}/resize", body)).status_code == 422
    small = await api.call("POST", f"{VMS}/{vm}/resize", {"disk_gib": 1})
    assert (small.json()["code"], small.json()["errors"][0]["field"]) == ("disk_cannot_shrink", "disk_gib")


async def grown(api: Platform, vm: str) -> bool:
    shown = await api.get(f"{VMS}/{vm}")
    return shown["running_spec"]["memory_mib"] == 1024 and not shown["pending_resize"]


async def test_a_vm_is_rebuilt(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    for body, field in (({"image": "nobody"}, "image"), ({"user_data": 7}, "user_data"), ({"disk_gib": 9}, "disk_gib")):
        refused = await api.call("POST", f"{VMS}/{vm}/rebuild", body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
    rebuilt = await api.call("POST", f"{VMS}/{vm}/rebuild")
    assert (rebuilt.status_code, rebuilt.json()["vm"]["rebuilds"]) == (202, 1), rebuilt.text
    await eventually(lambda: boots(api, vm, 2), "the node is told")
    await api.report(vm, Power.ON, boots=2)
    ended = await api.get(f"/v1/operations/{rebuilt.json()['operation']['id']}?wait=30s")
    assert (ended["verb"], ended["status"]) == ("rebuild", "succeeded")


async def test_a_restart_policy_is_said_and_seen(api: Platform) -> None:
    made = await api.create(restart_policy="on-failure")
    assert made["vm"]["restart_policy"] == "on-failure"
    changed = await api.call("PATCH", f"{VMS}/{made['vm']['id']}", {"restart_policy": "always"})
    assert (changed.status_code, changed.json()["vm"]["restart_policy"]) == (202, "always")
    assert (await api.create())["vm"]["restart_policy"] == "no"


async def test_a_watchdog_is_said_seen_and_wanted(api: Platform) -> None:
    made = await api.running(watchdog="reset")
    vm = made["vm"]["id"]
    wanted = await eventually(lambda: api.side.wanted(vm), "wanted document")
    assert (made["vm"]["watchdog"], wanted.watchdog, wanted.features) == ("reset", "reset", ("watchdog",))
    changed = await api.call("PATCH", f"{VMS}/{vm}", {"watchdog": "disabled"})
    assert (changed.status_code, changed.json()["vm"]["watchdog"]) == (202, "disabled")

    async def without() -> bool:
        found = await api.side.wanted(vm)
        return found is not None and (found.watchdog, found.features) == ("disabled", ())

    await eventually(without, "a document without it")
    assert (await api.create())["vm"]["watchdog"] == "disabled"


async def test_ways_out(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    asked = (await api.call("POST", f"{VMS}/{vm}/stop")).json()["operation"]["id"]
    given_up = await api.call("POST", f"{VMS}/{vm}/abandon")
    assert (given_up.json()["operation"]["status"], given_up.json()["vm"]["pending"]) == ("succeeded", None)
    stop = await api.get(f"/v1/operations/{asked}")
    assert (stop["status"], stop["problem"]["code"]) == ("cancelled", "abandoned")
    nothing = await api.call("POST", f"{VMS}/{vm}/abandon")
    assert (nothing.status_code, nothing.json()["code"]) == (409, "wrong_phase")
    well = await api.call("POST", f"{VMS}/{vm}/retry")
    assert (well.status_code, well.json()["code"]) == (409, "wrong_phase")
    alive = await api.call("POST", f"{VMS}/{vm}/forget", {"reason": "I want it gone"})
    assert (alive.status_code, alive.json()["code"]) == (409, "node_not_lost")

    await api.report(vm, Power.OFF, error=ReportError(code="disk_missing", detail="the disk is gone"))
    await eventually(lambda: failed(api, vm), "it failed")
    retried = await api.call("POST", f"{VMS}/{vm}/retry")
    assert (retried.json()["operation"]["verb"], retried.json()["vm"]["pending"]["verb"]) == ("retry", "start")
    await eventually(lambda: boots(api, vm, 2), "the node is told")
    await api.report(vm, Power.ON, boots=2)
    ended = await api.get(f"/v1/operations/{retried.json()['operation']['id']}?wait=30s")
    assert (ended["verb"], ended["status"]) == ("retry", "succeeded")


async def failed(api: Platform, vm: str) -> bool:
    return bool((await api.get(f"{VMS}/{vm}"))["phase"] == "failed")


async def boots(api: Platform, vm: str, count: int) -> bool:
    wanted = await api.side.wanted(vm)
    return wanted is not None and wanted.boots == count


async def test_conflicts_say_what_would_help(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    answer = await api.call("POST", f"{VMS}/{vm}/start")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "wrong_phase"
    assert "restart" in answer.json()["detail"]


async def test_projects_tags_images_and_nodes(api: Platform) -> None:
    made = (await api.call("POST", "/v1/projects", {"name": "My Shop", "tags": []})).json()
    assert made["project"]["id"] == "my-shop"
    assert made["operation"]["status"] == "succeeded"
    assert (await api.call("POST", "/v1/tags", {"id": "blue", "name": "Blue"})).status_code == 202
    changed = await api.call("PATCH", "/v1/projects/my-shop", {"name": "Shop", "tags": ["blue"]})
    assert changed.json()["project"]["tags"] == ["blue"]
    keyed = await api.call("PATCH", "/v1/projects/my-shop", {"ssh_keys": [SSH_KEY]})
    assert keyed.json()["project"]["ssh_keys"] == [SSH_KEY]
    bad = await api.call("PATCH", "/v1/projects/my-shop", {"ssh_keys": [SSH_KEY, "ssh-ed25519 nonsense"]})
    assert (bad.status_code, bad.json()["errors"][0]["field"]) == (422, "ssh_keys.1")
    assert (await api.call("POST", "/v1/projects", {"name": "x", "ssh_keys": ["key"]})).status_code == 422
    in_use = await api.call("DELETE", "/v1/tags/blue")
    assert (in_use.status_code, in_use.json()["code"]) == (409, "tag_in_use")
    assert (await api.call("DELETE", "/v1/projects/my-shop")).status_code == 202
    assert (await api.http.get("/v1/projects/my-shop")).status_code == 410
    assert (await api.call("DELETE", "/v1/tags/blue?wait=5")).status_code == 200

    for field, value in (("firmware", "efi"), ("seed", "cdrom"), ("fetch", "elsewhere"), ("firmware", 1)):
        body = {"id": "bad", "source": "/nowhere", "sha256": "0" * 64, field: value}
        refused = await api.call("POST", "/v1/images", body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
    registered = await api.call("POST", "/v1/images?wait=20s", {"id": "gone", "source": "/nowhere", "sha256": "0" * 64})
    assert registered.status_code == 200
    assert registered.json()["operation"]["status"] == "failed"
    assert registered.json()["operation"]["problem"]["errors"][0]["field"] == "source"
    assert (await api.call("DELETE", "/v1/images/gone")).status_code == 202

    cordoned = await api.call("POST", "/v1/nodes/host-1/cordon?wait=5s")
    assert cordoned.json()["node"]["status"] == "cordoned"
    assert (await api.get("/v1/nodes/host-1"))["cordoned"]
    await api.call("POST", "/v1/nodes/host-1/uncordon")


async def test_user_data_is_never_shown(api: Platform) -> None:
    made = await api.create(user_data="#cloud-config\npassword: hunter2\n", ssh_keys=[SSH_KEY])
    shown = await api.http.get(f"{VMS}/{made['vm']['id']}")
    assert shown.json()["has_user_data"] is True
    assert shown.json()["ssh_keys"] == [SSH_KEY]
    events = await api.http.get(f"/v1/events?vm={made['vm']['id']}")
    assert "hunter2" not in shown.text + events.text


async def test_who_asked_stands_in_the_log(api: Platform) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await api.call(
        "POST", VMS, {"name": "web-1", "image": "base", **SPEC}, x_request_id="audit-me", traceparent=trace
    )
    operation = answer.json()["operation"]["id"]
    first = (await api.get(f"/v1/events?operation={operation}"))["items"][0]
    assert first["actor"] == "local"
    assert first["requestid"] == "audit-me"
    assert first["traceparent"] == trace
    assert first["operationid"] == operation


ALICE = Access("alice", frozenset([Grant(Role.MEMBER, "p"), Grant(Role.OPERATOR)]), read_only=True)


@pytest.mark.parametrize("own", [True, False], ids=["operation", "no-operation"])
def test_a_request_says_what_the_contract_has(own: bool) -> None:
    """It is written without the model that reads it."""
    key, action = str(uuid.uuid4()), next(action for action in ACTIONS if (action.kind, action.verb) == ("vm", "stop"))
    who = Caller(Identity(ALICE, "c" * 12), "request", "00-1-2-03") if own else Caller(LOCAL, "r", None)
    asked = Requested(action, "default", "vm-id", key if own else None, "o" * own, "f" * own, {"force": True}, who)
    said = CommandRequest.model_validate_json(asked.payload())
    assert said.args == {"vm": "vm-id", "force": True}
    assert said.context == (
        contract.Caller(
            actor="alice",
            grants=(Grant(Role.OPERATOR), Grant(Role.MEMBER, "p")),
            read_only=True,
            credential="c" * 12,
            request="request",
            operation="o",
            fingerprint="f",
            key=key,
            traceparent="00-1-2-03",
        )
        if own
        else contract.Caller(actor="local", request="r", grants=(Grant(Role.OPERATOR),))
    )
    written = json.loads(asked.payload())["context"]
    assert written.keys() <= contract.Caller.model_fields.keys()  # else the reader ignores it
