"""A VM in rescue, over HTTP: what is asked, shown, wanted of its node, and refused."""

import uuid
from pathlib import Path
from typing import Any

from domain.contract import Power, Wanted
from domain.contract.wanted import RESCUE
from tests.gateway.platform import SPEC, VMS, Platform
from tests.handlers.platform import raw_disk
from tests.node_daemon.documents import qcow2_image
from tests.waiting import eventually


async def registered(api: Platform, virtual_gib: int | None = None, **more: Any) -> str:
    """The id of a new image."""
    id_ = f"rescue-{uuid.uuid4().hex[:8]}"
    file: Path = api.side.home / f"{id_}.raw"
    if virtual_gib is None:
        file.write_bytes(raw_disk() + id_.encode().ljust(512))
    else:
        qcow2_image(file, virtual_gib * 1024**3)
    answer = await api.call("POST", "/v1/images?wait=30s", {"id": id_, "source": str(file), **more})
    assert answer.json()["operation"]["status"] == "succeeded", answer.text
    return id_


async def told(api: Platform, vm: str, boots: int) -> Wanted:
    async def found() -> Wanted | None:
        document = await api.side.wanted(vm)
        return document if document is not None and document.boots == boots else None

    document: Wanted = await eventually(found, "the node is told")
    return document


async def ends(api: Platform, answer: Any, vm: str, boots: int) -> dict[str, Any]:
    """The operation, once the node has said that the VM is up again."""
    await api.report(vm, Power.ON, boots=boots)
    ended: dict[str, Any] = await api.get(f"/v1/operations/{answer.json()['operation']['id']}?wait=30s")
    return ended


async def test_a_vm_is_rescued_and_unrescued(api: Platform) -> None:
    image, vm = await registered(api), (await api.running())["vm"]["id"]
    answer = await api.call("POST", f"{VMS}/{vm}/rescue", {"image": image, "grace_seconds": 5})
    assert (answer.status_code, answer.json()["vm"]["rescue"]) == (202, image), answer.text
    document = await told(api, vm, 2)
    assert document.rescue is not None
    assert (document.rescue.image.image, document.rescue.disk, document.features) == (image, 2, (RESCUE,))
    assert document.image is not None
    assert (document.image.image, document.disk, document.grace_seconds) == ("base", 1, 5)
    ended = await ends(api, answer, vm, 2)
    assert (ended["verb"], ended["status"]) == ("rescue", "succeeded")
    shown = await api.get(f"{VMS}/{vm}")
    assert (shown["rescue"], shown["image"], shown["phase"], shown["rebuilds"]) == (image, "base", "running", 0)

    again = await api.call("POST", f"{VMS}/{vm}/rescue")
    assert (again.status_code, again.json()["code"]) == (409, "in_rescue")
    used = await api.call("DELETE", f"/v1/images/{image}")
    assert (used.status_code, used.json()["code"]) == (409, "image_in_use")

    answer = await api.call("POST", f"{VMS}/{vm}/unrescue", {"force": True})
    assert (answer.status_code, answer.json()["vm"]["rescue"]) == (202, None), answer.text
    document = await told(api, vm, 3)
    assert (document.rescue, document.features, document.grace_seconds) == (None, (), 0)
    assert (await ends(api, answer, vm, 3))["status"] == "succeeded"
    then = await api.get(f"{VMS}/{vm}?at={shown['position']}")
    assert then["rescue"] == image, "its past says so"
    again = await api.call("POST", f"{VMS}/{vm}/unrescue")
    assert (again.status_code, again.json()["code"]) == (409, "not_in_rescue")
    gone = await api.call("DELETE", f"/v1/images/{image}")
    assert gone.status_code == 202, gone.text


async def test_its_own_image_is_the_rescue_image_where_none_is_named(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    answer = await api.call("POST", f"{VMS}/{vm}/rescue")
    assert (answer.status_code, answer.json()["vm"]["rescue"]) == (202, "base"), answer.text
    await told(api, vm, 2)
    assert (await ends(api, answer, vm, 2))["status"] == "succeeded"


async def test_what_it_cannot_boot_from_is_refused(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    project = (await api.call("POST", "/v1/projects", {"name": "Other"})).json()["project"]["id"]
    arm, foreign = await registered(api, architecture="aarch64"), await registered(api, project=project)
    large = await registered(api, virtual_gib=8)
    for body, status, code in (
        ({"image": large}, 422, "disk_too_small"),
        ({"image": "nobody"}, 422, "image_not_found"),
        ({"image": foreign}, 422, "image_not_found"),
        ({"image": arm}, 422, "wrong_architecture"),
        ({"image": 7}, 422, "invalid_request"),
        ({"disk_gib": 7}, 422, "invalid_request"),
        ({"grace_seconds": -1}, 422, "invalid_request"),
    ):
        refused = await api.call("POST", f"{VMS}/{vm}/rescue", body)
        assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
    assert (await api.get(f"{VMS}/{vm}"))["rescue"] is None
    nobody = await api.call("POST", f"{VMS}/{uuid.uuid4()}/rescue")
    assert (nobody.status_code, nobody.json()["code"]) == (404, "vm_not_found")


async def test_a_node_of_an_earlier_version_is_not_asked_for_it(api: Platform) -> None:
    await api.side.node("older", region="old", features=())
    made = await api.call("POST", VMS, {"name": "old", "image": "base", "region": "old", **SPEC})
    vm = made.json()["vm"]["id"]
    await told(api, vm, 1)
    await api.report(vm, Power.ON, boots=1)

    async def runs() -> bool:
        return bool((await api.get(f"{VMS}/{vm}"))["phase"] == "running")

    await eventually(runs, "running")
    refused = await api.call("POST", f"{VMS}/{vm}/rescue")
    assert (refused.status_code, refused.json()["code"]) == (409, "unsupported"), refused.text
    assert "does not know rescue" in refused.json()["detail"]
