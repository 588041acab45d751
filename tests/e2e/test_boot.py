"""A stock Debian under QEMU, through HTTP, from nothing to guest-ready and back to nothing."""

import asyncio
import base64
import gzip
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import libvirt
import libvirt_qemu
import pytest

from cli.image_build import ImageFile, build_debian_image
from runtime.libvirtd import Libvirt
from runtime.settings import default_home
from tests.e2e.platform import Platform, platform
from tests.waiting import eventually

pytestmark = pytest.mark.qemu

VMS = "/v1/projects/boot/vms"
MARK = "nebula-user-data-ran"
USER_DATA = f"""#cloud-config
write_files:
  - path: /etc/nebula-test
    content: {MARK}
runcmd:
  - [sh, -c, "echo $(cat /etc/nebula-test) on $(hostname) > /dev/ttyS0"]
phone_home: {{url: "http://127.0.0.1:9/", tries: 1}}
"""


@pytest.fixture(scope="module")
def image() -> ImageFile:
    given = os.environ.get("NEBULA_HOME")
    cache = (Path(given) if given else default_home()) / "cache"
    return build_debian_image("bookworm", cache / "debian-12.qcow2", progress=print, cache=cache)


@pytest.fixture(scope="module")
async def up(libvirt_qemu: Libvirt) -> AsyncIterator[Platform]:
    async with platform() as made:
        yield made


async def asked(up: Platform, vm: str) -> httpx.Response:
    """What the guest says of itself, or why it does not."""
    async with up.client() as http:
        return await http.get(f"{VMS}/{vm}/guest")


async def speaks_for_itself(up: Platform, vm: str, addresses: list[str], mac: str) -> None:
    async def said() -> dict[str, Any] | None:
        answer = await asked(up, vm)
        assert answer.is_success or answer.json()["code"] in ("guest_agent_missing", "guest_agent_silent"), answer.text
        return answer.json() if answer.is_success else None

    guest = await eventually(said, "the guest's own word", seconds=120)
    assert (guest["hostname"], guest["os"]["id"], guest["os"]["version"]) == ("web-1", "debian", "12")
    assert guest["os"]["kernel_release"]
    assert guest["timezone"]["offset_seconds"] == 0
    root = {each["mountpoint"]: each for each in guest["filesystems"]}["/"]
    assert (root["device"], root["type"]) == ("vda1", "ext4")
    assert 0 < root["used_bytes"] < root["total_bytes"] <= 4 * 1024**3
    assert root["total_bytes"] > 3 * 1024**3, "it has grown to its disk"
    ours = {each["mac"]: each for each in guest["interfaces"]}[mac]
    assert set(addresses) <= {each["address"] for each in ours["addresses"]}


async def in_guest(domain: Any, script: str) -> None:
    """Have a guest whose agent answers run a shell script, in a second."""
    arguments = {"path": "/bin/sh", "arg": ["-c", f"sleep 1; {script}"]}
    runs = json.dumps({"execute": "guest-exec", "arguments": arguments})
    await asyncio.to_thread(libvirt_qemu.qemuAgentCommand, domain, runs, 10, 0)


async def agent_answers(up: Platform, vm: str) -> None:
    async def answers() -> bool:
        return (await asked(up, vm)).is_success

    await eventually(answers, "its agent answers", seconds=120)


async def ready_again(up: Platform, vm: str, guest_boots: int) -> dict[str, Any]:
    """The VM, once its guest has said in its so many-th boot that it is ready."""

    async def ready() -> dict[str, Any] | None:
        found = await up.call("GET", f"{VMS}/{vm}")
        return found if found["ready"] and found["guest_boots"] >= guest_boots else None

    found: dict[str, Any] = await eventually(ready, f"ready in boot {guest_boots}", seconds=400)
    return found


async def panics_and_is_started_again(up: Platform, vm: str, domain: Any) -> None:
    """A kernel that panics is a crash; the VM's policy starts it again, and it is ready in that boot.

    Not after a `reboot` of its own: without KVM, QEMU takes up to minutes to unpack a kernel over the code of another.
    """
    await in_guest(domain, "echo c > /proc/sysrq-trigger")
    found = await ready_again(up, vm, 2)
    assert (found["boots"], found["guest_boots"], found["restarts"], found["phase"]) == (2, 2, 1, "running")
    assert found["ready_at"] > found["first_ready_at"]
    page = await up.call("GET", f"/v1/events?vm={vm}&limit=500")
    told = [(event["type"].rsplit(".", 1)[-1], event["data"].get("cause")) for event in page["items"]]
    expected = [
        *[("VmStarted", None), ("VmGuestReady", None)],
        *[("VmStopped", "crashed"), ("VmRestartScheduled", None), ("VmRestartedByPolicy", None)],
        *[("VmStarted", None), ("VmGuestReady", None)],
    ]
    assert [each for each in told if each in expected] == expected


async def hangs_without_harm(up: Platform, vm: str, domain: Any) -> None:
    """The agent stops in the middle: that is told, and what else is done to the VM does not wait for it."""
    await in_guest(domain, "kill -STOP $PPID")

    async def silent() -> bool:
        answer = await asked(up, vm)
        return answer.status_code == 409 and answer.json()["code"] == "guest_agent_silent"

    await eventually(silent, "an agent that hangs", seconds=60)
    asking = asyncio.create_task(asked(up, vm))
    await asyncio.sleep(0.5)
    for verb in ("pause", "resume"):
        await up.succeed("POST", f"{VMS}/{vm}/{verb}")
    assert not asking.done(), "neither waited for the agent"
    answer = await asking
    assert (answer.status_code, answer.json()["code"]) == (409, "guest_agent_silent")
    await up.succeed("POST", f"{VMS}/{vm}/stop", {"grace_seconds": 60})
    assert domain.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN], "by its own doing"
    answer = await asked(up, vm)
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_phase")


async def test_a_stock_image_boots_is_configured_and_leaves_nothing(up: Platform, image: ImageFile) -> None:
    await up.call("POST", "/v1/projects", {"id": "boot", "name": "Boot"})
    await up.register("debian-12", image.path)
    body = {
        "name": "web-1",
        "image": "debian-12",
        "vcpus": 1,
        "memory_mib": 512,
        "disk_gib": 4,
        "restart_policy": "on-failure",
    }
    given = base64.b64encode(gzip.compress(USER_DATA.encode())).decode()
    accepted = await up.succeed("POST", VMS, {**body, "user_data_base64": given})
    assert accepted["vm"]["warnings"] == []
    vm = accepted["vm"]["id"]

    async def ready() -> dict[str, object] | None:
        found = await up.call("GET", f"{VMS}/{vm}")
        return found if found["ready"] and found["addresses"] else None

    found = await eventually(ready, "guest ready", seconds=400)
    assert {key["type"] for key in found["host_keys"]} >= {"ssh-ed25519"}
    assert all(key["fingerprint"].startswith("SHA256:") for key in found["host_keys"])

    connection = libvirt.open("qemu:///system")
    domain = connection.lookupByUUIDString(vm)
    xml = domain.XMLDesc()
    console = next((up.home / "node").rglob("*.log"), None)
    assert console is not None

    async def said() -> bool:
        return f"{MARK} on web-1" in console.read_text(errors="replace")

    await eventually(said, "the guest's own word that its user-data ran", seconds=120)
    mac = ET.fromstring(xml).find("devices/interface/mac")
    assert mac is not None
    await speaks_for_itself(up, vm, found["addresses"], mac.attrib["address"])
    assert (found["ready_at"], found["guest_boots"]) == (found["first_ready_at"], 1)
    await panics_and_is_started_again(up, vm, domain)
    xml = domain.XMLDesc()
    seed = xml.split("s=http", 1)[1].split("<", 1)[0]
    async with httpx.AsyncClient() as http:
        served = await http.get(f"http{seed}user-data")
        assert gzip.decompress(served.content) == USER_DATA.encode(), "byte for byte"
        unknown = await http.get(f"http{seed[:-6]}AAAAA/user-data")
        assert unknown.status_code == 404

    await agent_answers(up, vm)
    await hangs_without_harm(up, vm, domain)
    position = found["position"]
    await up.succeed("DELETE", f"{VMS}/{vm}")
    async with httpx.AsyncClient() as http:
        gone = await http.get(f"http{seed}user-data")
    assert (gone.status_code, gone.content) == (404, unknown.content), "gone looks like never been"
    with pytest.raises(libvirt.libvirtError):
        connection.lookupByUUIDString(vm)
    connection.close()
    assert not list((up.home / "node").rglob(f"*{vm}*"))

    then = await up.call("GET", f"{VMS}/{vm}?at={position}")
    assert (then["phase"], then["ready"]) == ("running", True), "its past can still be read"
    types = await up.event_types(vm)
    expected = ["VmRequested", "VmScheduled", "VmStarted", "VmGuestReady", "VmDeletionRequested", "VmDeleted"]
    assert list(dict.fromkeys(t for t in types if t in expected)) == expected, "each for the first time"
