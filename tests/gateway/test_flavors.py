"""Flavors over HTTP, and VMs that are made of them."""

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.platform import VMS, Platform

SIZE = {"vcpus": 2, "memory_mib": 256, "disk_gib": 4}


async def flavor(api: Platform, name: str, **more: Any) -> dict[str, Any]:
    answer = await api.call("POST", "/v1/flavors", {"name": name, **SIZE, **more})
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()["flavor"]
    return made


def body(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "base", "region": "nowhere", **more}


async def refused(api: Platform, status: int, code: str, field: str | None, **more: Any) -> None:
    answer = await api.call("POST", VMS, body("no", **more))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert field is None or problem["errors"][0]["field"] == field


async def test_a_vm_records_what_it_was_made_of(api: Platform) -> None:
    made = await flavor(api, "Made Of", labels={"b": "2", "a": "1"}, description="two CPUs")
    assert (made["id"], made["vcpus"], made["labels"]) == ("made-of", 2, {"a": "1", "b": "2"})
    answer = await api.call("POST", VMS, body("of-flavor", flavor="made-of", disk_gib=6))
    vm = answer.json()["vm"]
    assert {**SIZE, "disk_gib": 6, "flavor": "made-of"}.items() <= vm.items()
    assert (await api.get(f"{VMS}/{vm['id']}"))["flavor"] == "made-of"
    assert (await api.create())["vm"]["flavor"] is None
    assert "made-of" in [each["id"] for each in (await api.get("/v1/flavors"))["items"]]
    assert (await api.get("/v1/flavors/made-of"))["description"] == "two CPUs"


async def test_sizes_are_said_once(api: Platform) -> None:
    await flavor(api, "once")
    await refused(api, 422, "flavor_not_found", "flavor", flavor="nosuch")
    await refused(api, 422, "invalid_request", "vcpus", flavor="once", vcpus=2)
    await refused(api, 422, "invalid_request", "memory_mib", memory_mib=None, vcpus=1, disk_gib=4)
    await refused(api, 422, "disk_too_small", "disk_gib", flavor="once", disk_gib=3)


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        ({"disk_gib": "3"}, "disk_too_small", "spec.disk_gib"),
        ({"disk_gib": 3.0}, "disk_too_small", "spec.disk_gib"),
        ({"disk_gib": None}, "invalid_request", "spec.disk_gib"),
        ({"disk_gib": "9" * 30}, "invalid_request", "spec.disk_gib"),
        ({"vcpus": None}, "invalid_request", "spec.vcpus"),
        ({"vcpus": 2}, "invalid_request", "spec.vcpus"),
        ({"memory_mib": 256}, "invalid_request", "spec.memory_mib"),
        ({"cores": 2}, "invalid_request", "spec.cores"),
        ("small", "invalid_request", "spec"),
    ],
)
async def test_a_size_beside_a_flavor_on_the_bus(api: Platform, spec: object, code: str, field: str) -> None:
    """The bus takes what gateways never say."""
    await api.call("POST", "/v1/flavors", {"name": "bus", **SIZE}, Idempotency_Key="bus")
    asked = {"vm": str(uuid.uuid4()), "name": "b", "image": "base", "flavor": "bus", "spec": spec}
    problem = (await api.side.ask("default", "vm", "create", asked))["problem"]
    assert (problem["code"], problem["field"], problem["status"]) == (code, field, 422)


async def test_a_create_asked_again_after_its_flavor_was_deprecated(api: Platform) -> None:
    await flavor(api, "replayed")
    asked = body("replayed", flavor="replayed")
    first = await api.call("POST", VMS, asked, Idempotency_Key="of-a-flavor")
    await api.call("POST", "/v1/flavors/replayed/deprecate")
    again = await api.call("POST", VMS, asked, Idempotency_Key="of-a-flavor")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true"), again.text
    assert again.json()["operation"]["id"] == first.json()["operation"]["id"]
    other = await api.call("POST", VMS, {**asked, "disk_gib": 5}, Idempotency_Key="of-a-flavor")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_one_of_another_project_is_not_there(api: Platform) -> None:
    await api.call("POST", "/v1/projects", {"name": "Others"})
    await flavor(api, "theirs", project="others")
    await refused(api, 422, "flavor_not_found", "flavor", flavor="theirs")
    answer = await api.call("POST", "/v1/projects/others/vms", body("own", flavor="theirs"))
    assert answer.status_code == 202, answer.text
    mine = [each["id"] for each in (await api.get("/v1/flavors?project=default"))["items"]]
    assert "theirs" not in mine
    gone = await api.call("DELETE", "/v1/projects/others")
    assert gone.status_code == 409 and "project_not_empty" in gone.text


async def test_a_project_is_not_deleted_while_a_flavor_belongs_to_it(api: Platform) -> None:
    """Otherwise a later project of the same id would have the flavor."""
    await api.call("POST", "/v1/projects", {"name": "Owners"})
    await flavor(api, "owned", project="owners")
    answer = await api.call("DELETE", "/v1/projects/owners")
    assert (answer.status_code, answer.json()["code"]) == (409, "project_not_empty")
    assert "flavors (owned)" in answer.json()["detail"]
    assert (await api.call("DELETE", "/v1/flavors/owned")).status_code == 202
    assert (await api.call("DELETE", "/v1/projects/owners")).status_code == 202


async def test_it_is_deprecated_and_not_deleted_while_used(api: Platform) -> None:
    await flavor(api, "used")
    vm = (await api.call("POST", VMS, body("user", flavor="used"))).json()["vm"]
    answer = await api.call("DELETE", "/v1/flavors/used")
    assert (answer.status_code, answer.json()["code"]) == (409, "flavor_in_use")
    assert (await api.call("POST", "/v1/flavors/used/deprecate")).json()["flavor"]["deprecated"]
    await refused(api, 409, "flavor_deprecated", "flavor", flavor="used")
    assert not (await api.call("POST", "/v1/flavors/used/restore")).json()["flavor"]["deprecated"]
    changed = await api.call("PATCH", "/v1/flavors/used", {"name": "Used"})
    assert changed.json()["flavor"]["name"] == "Used"
    await api.call("DELETE", f"{VMS}/{vm['id']}")

    async def deleted() -> int:
        return (await api.call("DELETE", "/v1/flavors/used")).status_code

    for _ in range(100):
        if await deleted() in (202, 410):
            break
        await asyncio.sleep(0.1)
    assert (await api.call("GET", "/v1/flavors/used")).status_code == 410


@pytest.mark.parametrize("number", range(3))
async def test_a_deletion_and_a_create_at_once(api: Platform, number: int) -> None:
    """Either the VM is there and the flavor as well, or neither is."""
    name = f"raced-{number}"
    await flavor(api, name)
    made, gone = await asyncio.gather(
        api.call("POST", VMS, body(name, flavor=name)), api.call("DELETE", f"/v1/flavors/{name}")
    )
    there = (await api.call("GET", f"/v1/flavors/{name}?min_position={made.json().get('position', 0)}")).status_code
    assert (made.status_code == 202) == (there == 200), (made.text, gone.text)
    assert (gone.status_code == 202) == (there == 410)


async def nebula(api: Platform, home: Path, *arguments: str) -> Any:
    """What a command of `nebula` prints as JSON."""
    command = [sys.executable, "-m", "cli.main", *arguments, "--url", api.url, "--output", "json"]
    environment = {**os.environ, "NEBULA_HOME": str(home)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_on_the_command_line(api: Platform, tmp_path: Path) -> None:
    size = ("--vcpus", "2", "--memory", "256", "--disk", "4")
    made = await nebula(api, tmp_path, "flavor", "create", "Typed", *size, "--label", "a=b", "--private")
    assert (made["flavor"]["id"], made["flavor"]["project"], made["flavor"]["labels"]) == (
        "typed",
        "default",
        {"a": "b"},
    )
    vm = await nebula(
        api,
        tmp_path,
        *("vm", "create", "typed", "--image", "base", "--flavor", "typed", "--region", "nowhere"),
        "--no-wait",
    )
    assert {**SIZE, "flavor": "typed"}.items() <= vm["vm"].items()
    changed, listed = await asyncio.gather(
        nebula(api, tmp_path, "flavor", "change", "typed", "--name", "Other"), nebula(api, tmp_path, "flavor", "list")
    )
    assert changed["flavor"]["name"] == "Other" and "typed" in [each["id"] for each in listed["items"]]
    assert (await nebula(api, tmp_path, "flavor", "deprecate", "typed"))["flavor"]["deprecated"]
    assert not (await nebula(api, tmp_path, "flavor", "restore", "typed"))["flavor"]["deprecated"]
    assert (await nebula(api, tmp_path, "flavor", "show", "typed"))["vcpus"] == 2
