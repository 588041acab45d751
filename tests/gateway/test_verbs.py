"""What can be done to a VM now: each verb is judged as the command itself would be."""

from typing import Any

import pytest

from domain.contract import Power
from gateway.commands.actions import ACTIONS
from tests.gateway.platform import VMS, Platform
from tests.waiting import eventually

CALLS = [action for action in ACTIONS if action.kind == "vm" and not action.creates]
#: Bodies that change nothing, for verbs that need one.
BODIES: dict[str, Any] = {"resize": {"disk_gib": 4}, "forget": {"reason": "it is gone"}, "change": {"tags": []}}


async def verbs(api: Platform, vm: str) -> dict[str, Any]:
    found = await api.get(f"{VMS}/{vm}/verbs")
    return {item["verb"]: item for item in found["items"]}


async def made(api: Platform, life: str) -> str:
    """A VM in a phase of its life."""
    if life == "waits":
        vm = str((await api.create(region="elsewhere"))["vm"]["id"])
        await settled(api, vm, "unschedulable")
        return vm
    vm = str((await api.running(protected=life == "protected"))["vm"]["id"])
    if life in ("stopped", "stopping"):
        await api.call("POST", f"{VMS}/{vm}/stop", {"force": True})
    if life == "stopped":
        await api.report(vm, Power.OFF, boots=1)
    if life in ("paused", "rescue"):
        await api.call("POST", f"{VMS}/{vm}/{'pause' if life == 'paused' else 'rescue'}")
        await api.report(vm, Power.PAUSED if life == "paused" else Power.ON, boots=1 if life == "paused" else 2)
    await settled(api, vm, {"stopped": "stopped", "paused": "paused"}.get(life, "running"))
    return vm


async def settled(api: Platform, vm: str, phase: str) -> None:
    """Wait until the read models have the VM in a phase. Only a stop may be pending."""

    async def there() -> bool:
        found = await api.get(f"{VMS}/{vm}")
        rests = found["pending"] is None or found["pending"]["verb"] == "stop" or phase == "unschedulable"
        return bool(found["phase"] == phase and rests)

    await eventually(there, f"the VM is {phase}")


@pytest.mark.parametrize("life", ["waits", "running", "protected", "stopped", "stopping", "paused", "rescue"])
async def test_each_verb_is_judged_as_its_command(api: Platform, life: str) -> None:
    """Those that are refused are tried: they change nothing. Of those that are accepted, one is tried."""
    vm = await made(api, life)
    judged = await verbs(api, vm)
    assert [*judged] == [action.verb for action in CALLS]
    for verb, item in judged.items():
        assert item["path"].startswith(f"{VMS}/{vm}") and item["summary"]
        for force, said in ((False, item), (True, item["forced"])):
            if said is None or said["accepted"]:
                continue
            body = {**BODIES.get(verb, {}), **({"force": True} if force else {})}
            answer = await api.call(item["method"], item["path"], body or None)
            document = answer.json()
            assert (answer.status_code, document["code"]) == (409, said["code"]), (verb, force, said, document)
            assert document["detail"] == said["why"]
    accepted = next(item for verb, item in judged.items() if item["accepted"] and verb != "change")
    answer = await api.call(accepted["method"], accepted["path"], BODIES.get(accepted["verb"]))
    assert answer.status_code == 202, (accepted, answer.text)


async def test_force_is_judged_by_itself(api: Platform) -> None:
    paused = await verbs(api, await made(api, "paused"))
    assert not paused["stop"]["accepted"] and paused["stop"]["forced"]["accepted"]
    assert paused["pause"]["forced"] is None and not paused["pause"]["accepted"]
    assert paused["resize"]["needs_one_of"] == ["vcpus", "memory_mib", "disk_gib"]
    assert paused["forget"]["needs"] == ["reason"]


async def test_what_is_known_of_the_node_counts(api: Platform) -> None:
    vm = await made(api, "running")
    forget = (await verbs(api, vm))["forget"]
    assert (forget["accepted"], forget["code"]) == (False, "node_not_lost")


async def test_an_automatic_restart_can_be_stopped(api: Platform) -> None:
    """The row of a VM does not say that its pending start is automatic; a stop overtakes that one only."""
    vm = str((await api.running(restart_policy="always"))["vm"]["id"])
    await api.report(vm, Power.OFF, cause="guest")

    async def starts() -> Any:
        found = await api.get(f"{VMS}/{vm}")
        return found["pending"] is not None and found["pending"]["verb"] == "start"

    await eventually(starts, "it is restarted")
    assert (await verbs(api, vm))["stop"]["accepted"]
    assert (await api.call("POST", f"{VMS}/{vm}/stop")).status_code == 202


async def test_a_deleted_vm_has_no_verbs(api: Platform) -> None:
    vm = await made(api, "waits")
    await api.call("DELETE", f"{VMS}/{vm}")
    assert (await api.get(f"{VMS}/{vm}/verbs", 410))["code"] == "vm_deleted"
