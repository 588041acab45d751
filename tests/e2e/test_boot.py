"""A stock Debian under QEMU, through HTTP, from nothing to guest-ready and back to nothing."""

import asyncio
import base64
import contextlib
import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import libvirt
import pytest
import yaml

from cli.local.image_build import ImageFile, build_debian_image
from runtime.local.libvirtd import Libvirt
from runtime.settings import default_home
from tests.e2e.guests import Guest, key_pair, kind, over_ssh
from tests.e2e.platform import Json, Platform, platform
from tests.node_daemon.test_seed_disk import content
from tests.waiting import eventually

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(1200)]

VMS = "/v1/projects/boot/vms"
#: For documentation: on no network.
MOVED = "192.0.2.77"
MARK = "nebula-user-data-ran"
#: From cloud-init's second stage on, programs are at the same addresses in all processes. Else QEMU, which translates
#: all code without KVM, translates each library anew for each process.
SAME_ADDRESSES = """#cloud-config
bootcmd:
  - [sh, -c, "echo 0 > /proc/sys/kernel/randomize_va_space"]
"""
USER_DATA = f"""{SAME_ADDRESSES}
write_files:
  - path: /etc/nebula-test
    content: {MARK}
  - path: /etc/sysctl.d/10-same-addresses.conf
    content: kernel.randomize_va_space = 0
runcmd:
  - [sh, -c, "echo $(cat /etc/nebula-test) on $(hostname) > /dev/ttyS0"]
phone_home: {{url: "http://127.0.0.1:9/", tries: 1}}
"""


def cache_folder() -> Path:
    given = os.environ.get("NEBULA_HOME")
    return (Path(given) if given else default_home()) / "cache"


@pytest.fixture(scope="module")
def image() -> ImageFile:
    cache = cache_folder()
    return build_debian_image("bookworm", cache / "debian-12.qcow2", progress=print, cache=cache)


@pytest.fixture(scope="module")
async def up(libvirt_qemu: Libvirt) -> AsyncIterator[Platform]:
    async with platform(NEBULA_USAGE_SECONDS="2") as made:
        yield made


async def speaks_for_itself(guest: Guest, addresses: list[str], mac: str) -> None:
    async def said() -> Json | None:
        answer = await guest.asked()
        assert answer.is_success or answer.json()["code"] in ("guest_agent_missing", "guest_agent_silent"), answer.text
        return answer.json() if answer.is_success else None

    it = await eventually(said, "the guest's own word", seconds=120)
    assert (it["hostname"], it["os"]["id"], it["os"]["version"]) == ("web-1", "debian", "12")
    assert it["os"]["kernel_release"]
    assert it["timezone"]["offset_seconds"] == 0
    root = {each["mountpoint"]: each for each in it["filesystems"]}["/"]
    assert (root["device"], root["type"]) == ("vda1", "ext4")
    assert 0 < root["used_bytes"] < root["total_bytes"] <= 4 * 1024**3
    assert root["total_bytes"] > 3 * 1024**3, "it has grown to its disk"
    ours = {each["mac"]: each for each in it["interfaces"]}[mac]
    assert set(addresses) <= {each["address"] for each in ours["addresses"]}


async def lets_in_whom_it_is_told_to(found: Json, own: Path, keys: list[str]) -> None:
    """No key's comment costs anybody the login, its owner or others."""
    assert set(keys) <= set((await over_ssh(found, own, "cat .ssh/authorized_keys")).splitlines())


def seed_url(up: Platform, vm: str) -> str:
    """Where the guest fetches its data in this boot, from its seed disk."""
    found: str = yaml.safe_load(content(up.home / "node" / "disks" / vm / "cidata.iso")["meta-data"])["seedfrom"]
    return found


def found_on_host(secret: str, domain: Any) -> list[str]:
    """Where every user of the host finds the secret: in the processes, in libvirt's XML, in its logs, in open files."""
    places = {"xml": domain.XMLDesc().encode()}
    for file in (*Path("/proc").glob("[0-9]*/cmdline"), *Path("/var/log/libvirt").rglob("*.log")):
        with contextlib.suppress(OSError):
            places[str(file)] = file.read_bytes()
    return [place for place, held in places.items() if secret.encode() in held]


async def changes_its_address(guest: Guest, mac: str) -> None:
    """What its agent says is believed, also where the lease of another address still runs."""
    before = (await guest.up.call("GET", guest.path))["addresses"]
    device = f"device=$(grep -l {mac} /sys/class/net/*/address | cut -d/ -f5)"
    await guest.runs(f"{device}; ip address flush dev $device scope global; ip address add {MOVED}/24 dev $device")

    async def moved() -> bool:
        found = await guest.up.call("GET", guest.path)
        return bool(found["address_sources"] == [{"address": MOVED, "source": "agent"}])

    await eventually(moved, "the address that its agent says, and no other", seconds=120)
    assert MOVED not in before
    assert (await guest.up.call("GET", guest.path))["addresses"] == [MOVED]


async def panics_and_is_started_again(guest: Guest) -> None:
    """A kernel that panics is a crash; the VM's policy starts it again, and it is ready in that boot.

    No address of before is shown in it. What cloud-init wrote is on the disk by then: without `sync`, a guest that is
    quick loses the file that says how its network is set up, and has no network in boot 2.
    """
    await guest.runs("sync; echo c > /proc/sysrq-trigger")
    found = await guest.until_ready(2)
    assert (found["boots"], found["guest_boots"], found["restarts"], found["phase"]) == (2, 2, 1, "running")
    assert found["ready_at"] > found["first_ready_at"]
    types = ("VmStarted", "VmGuestReady", "VmStopped", "VmRestartScheduled", "VmRestartedByPolicy")
    told = await guest.events(*types, "VmAddressesChanged")
    assert [kind(event) for event in told if kind(event) in types] == [
        *("VmStarted", "VmGuestReady"),
        *("VmStopped", "VmRestartScheduled", "VmRestartedByPolicy"),
        *("VmStarted", "VmGuestReady"),
    ]
    assert [event["data"]["cause"] for event in told if kind(event) == "VmStopped"] == ["crashed"]
    again = [kind(event) for event in told].index("VmRestartedByPolicy")
    assert not any(MOVED in event["data"].get("addresses", ()) for event in told[again:])


async def is_measured(guest: Guest) -> None:
    """Its CPU, disk and network have been used while it booted."""

    async def found() -> bool:
        used = await guest.up.call("GET", f"{guest.path}/usage?since=10m&points=500")
        highest = {
            name: max((point[name] or 0 for point in used["points"]), default=0)
            for name in ("cpu", "memory_bytes", "disk_bytes", "disk_read", "disk_written", "net_in", "net_out")
        }
        assert used["size"]["cpus"] == 1 and used["size"]["memory_bytes"] == 512 * 1024**2
        assert 0 < highest["cpu"] < 32, "cores, and no nanoseconds"
        return all(highest.values())

    await eventually(found, "its usage", seconds=30)


async def hangs_without_harm(guest: Guest) -> None:
    """The agent stops in the middle: that is told, and what else is done to the VM does not wait for it."""
    await guest.agent_answers()
    await guest.runs("kill -STOP $PPID")

    async def silent() -> bool:
        answer = await guest.asked()
        return answer.status_code == 409 and answer.json()["code"] == "guest_agent_silent"

    await eventually(silent, "an agent that hangs", seconds=60)
    asking = asyncio.create_task(guest.asked())
    await asyncio.sleep(0.5)
    for verb in ("pause", "resume"):
        await guest.up.succeed("POST", f"{guest.path}/{verb}")
    assert not asking.done(), "neither waited for the agent"
    answer = await asking
    assert (answer.status_code, answer.json()["code"]) == (409, "guest_agent_silent")
    await guest.up.succeed("POST", f"{guest.path}/stop", {"grace_seconds": 60})
    assert guest.domain.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN], "by its own doing"
    answer = await guest.asked()
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_phase")


async def test_a_stock_image_boots_is_configured_and_leaves_nothing(up: Platform, image: ImageFile) -> None:
    own = up.home / "own"
    keys = [await key_pair(own, "me@laptop \N{GRINNING FACE}"), await key_pair(up.home / "team", "José \N{ROCKET}")]
    await up.call("POST", "/v1/projects", {"id": "boot", "name": "Boot", "ssh_keys": keys[1:]})
    await up.register("debian-12", image.path)
    body = {
        "name": "web-1",
        "image": "debian-12",
        "vcpus": 1,
        "memory_mib": 512,
        "disk_gib": 4,
        "restart_policy": "on-failure",
        "ssh_keys": keys[:1],
    }
    given = base64.b64encode(gzip.compress(USER_DATA.encode())).decode()
    accepted = await up.succeed("POST", VMS, {**body, "user_data_base64": given})
    assert accepted["vm"]["warnings"] == []
    vm = accepted["vm"]["id"]

    connection = libvirt.open("qemu:///system")
    domain = connection.lookupByUUIDString(vm)
    guest = Guest(up, f"{VMS}/{vm}", domain)
    found = await guest.until_ready(1)
    assert {key["type"] for key in found["host_keys"]} >= {"ssh-ed25519"}
    assert all(key["fingerprint"].startswith("SHA256:") for key in found["host_keys"])

    xml = domain.XMLDesc()
    console = next((up.home / "node").rglob("*.log"), None)
    assert console is not None

    async def said() -> bool:
        return f"{MARK} on web-1" in console.read_text(errors="replace")

    await eventually(said, "the guest's own word that its user-data ran", seconds=120)
    await is_measured(guest)
    mac = ET.fromstring(xml).find("devices/interface/mac")
    assert mac is not None
    await speaks_for_itself(guest, found["addresses"], mac.attrib["address"])
    assert (found["ready_at"], found["guest_boots"]) == (found["first_ready_at"], 1)
    await lets_in_whom_it_is_told_to(found, own, keys)
    await changes_its_address(guest, mac.attrib["address"])
    await panics_and_is_started_again(guest)
    seed = seed_url(up, vm)
    secret = seed.rstrip("/").rpartition("/")[2]
    assert found_on_host(secret, domain) == [], "other users of the host cannot read it"
    async with httpx.AsyncClient() as http:
        served = await http.get(f"{seed}user-data")
        unknown = await http.get(f"{seed[:-6]}AAAAA/user-data")
        assert unknown.status_code == 404
        assert (served.status_code, served.content) == (404, unknown.content), "only the guest itself gets it"

    await hangs_without_harm(guest)
    position = found["position"]
    await up.succeed("DELETE", f"{VMS}/{vm}")
    async with httpx.AsyncClient() as http:
        gone = await http.get(f"{seed}user-data")
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


async def test_a_start_fetches_what_its_node_has_lost(up: Platform) -> None:
    """The base image of its disk, and the disk that its seed is on."""
    await up.blank_image(seed="disk")
    body = {"name": "lost", "image": "blank", "vcpus": 1, "memory_mib": 64, "disk_gib": 1}
    made = await up.succeed("POST", "/v1/projects/default/vms", body)
    path, node = f"/v1/projects/default/vms/{made['vm']['id']}", up.home / "node"
    digest = (await up.call("GET", "/v1/images/blank"))["sha256"]
    await up.succeed("POST", f"{path}/stop", {"force": True})
    lost = [*(node / "images").glob(f"{digest}.*"), node / "disks" / made["vm"]["id"] / "cidata.iso"]
    assert [file.suffix for file in lost] == [".raw", ".iso"]
    for file in lost:
        file.unlink()
    await up.succeed("POST", f"{path}/start")
    found = await up.call("GET", path)
    assert (found["phase"], found["boots"]) == ("running", 2)
    assert all(file.exists() for file in lost)
    await up.succeed("DELETE", path)
