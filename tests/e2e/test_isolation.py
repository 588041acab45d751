"""Stock Debian 13 beside a guest of another project: it opens nothing with its secret, and cannot pose as it.

`tests/e2e/test_boot.py` has Debian 12, `tests/node_daemon/test_host_firewall.py` who reaches whom.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import libvirt
import libvirt_qemu
import pytest

from cli.local.image_build import build_debian_image
from runtime.local.libvirtd import Libvirt
from tests.e2e.guests import Guest
from tests.e2e.platform import platform
from tests.e2e.test_boot import SAME_ADDRESSES, cache_folder, seed_url
from tests.e2e.test_rescue import boot_sector
from tests.waiting import eventually

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(1200)]

#: An address that no guest has.
FREE = 250


@dataclass
class Thief:
    """A guest that knows the secret of another one."""

    guest: Guest
    seed: str
    stolen: str
    #: the MAC address of the other one
    mac: str

    async def runs(self, script: str) -> str:
        """The output of a shell script in the guest, by its agent."""
        arguments = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        started = await self._agent({"execute": "guest-exec", "arguments": arguments})
        done: dict[str, Any] = {}

        async def ended() -> bool:
            done.update(await self._agent({"execute": "guest-exec-status", "arguments": {"pid": started["pid"]}}))
            return bool(done["exited"])

        await eventually(ended, script, seconds=120)
        return base64.b64decode(done.get("out-data", "")).decode()

    async def _agent(self, command: dict[str, Any]) -> dict[str, Any]:
        answer = await asyncio.to_thread(libvirt_qemu.qemuAgentCommand, self.guest.domain, json.dumps(command), 30, 0)
        found: dict[str, Any] = json.loads(answer)["return"]
        return found

    async def fetches(self, url: str) -> str:
        """The status with which a URL is answered, or why it is not."""
        program = (
            "import urllib.request as u,urllib.error as e\n"
            f"try: print(u.urlopen('{url}',timeout=5).status)\n"
            "except e.HTTPError as x: print(x.code)\n"
            "except Exception as x: print('nothing')\n"
        )
        return (await self.runs(f'python3 -c "{program}"')).strip()

    async def reaches(self, address: str, port: int) -> bool:
        program = f"import socket; socket.create_connection(('{address}', {port}), 4); print('reached')"
        return "reached" in await self.runs(f'python3 -c "{program}" 2>/dev/null')


@pytest.fixture(scope="module")
async def thief(libvirt_qemu: Libvirt) -> AsyncIterator[Thief]:
    cache = cache_folder()
    file = await asyncio.to_thread(build_debian_image, "trixie", cache / "debian-13.qcow2", progress=print, cache=cache)
    connection = libvirt.open("qemu:///system")
    async with platform() as up:

        async def create(project: str, image: str, memory_mib: int, disk_gib: int, **more: str) -> Guest:
            await up.succeed("POST", "/v1/projects", {"id": project, "name": project})
            body = {"name": "web", "image": image, "vcpus": 1, "memory_mib": memory_mib, "disk_gib": disk_gib, **more}
            made = await up.succeed("POST", f"/v1/projects/{project}/vms", body)
            vm = made["vm"]["id"]
            return Guest(up, f"/v1/projects/{project}/vms/{vm}", connection.lookupByUUIDString(vm))

        await up.succeed("POST", "/v1/images", {"id": "debian-13", "source": str(file.path), "sha256": file.sha256})
        (up.home / "small.raw").write_bytes(boot_sector(b"disks: ?"))
        await up.register("small", up.home / "small.raw")
        owner, guest = (
            await create("victim", "small", 64, 1),
            await create("thief", "debian-13", 512, 4, user_data=SAME_ADDRESSES),
        )
        await guest.until_ready(1)
        await guest.agent_answers()
        mac = ET.fromstring(owner.domain.XMLDesc()).find("devices/interface/mac")
        assert mac is not None
        yield Thief(guest, seed_url(up, guest.vm), seed_url(up, owner.vm), mac.attrib["address"])
    connection.close()


async def test_a_stolen_secret_opens_nothing_for_another_guest(thief: Thief) -> None:
    up = thief.guest.up
    assert await thief.fetches(f"{thief.seed}meta-data") == "200"
    for document in ("meta-data", "user-data", "vendor-data"):
        assert await thief.fetches(f"{thief.stolen}{document}") == "404"
    base = thief.seed.rsplit("/", 2)[0]
    async with httpx.AsyncClient() as http:
        token = (up.home / "guest-data.token").read_text().strip()
        metrics = (await http.get(f"{base}/metrics", headers={"Authorization": f"Bearer {token}"})).text
    assert 'nebula_guest_data_refusals_total{cause="address"} 3.0' in metrics
    assert "is not an address of the VM" in (up.home / "log" / "guest-data.log").read_text()


async def test_a_guest_that_takes_another_address_is_heard_by_nobody(thief: Thief) -> None:
    device = "dev=$(ip -o route show default | sed 's/.* dev //;s/ .*//')"
    host = thief.seed.split("/")[2].split(":")[0]
    taken = f"{host.rpartition('.')[0]}.{FREE}"
    fetch = f"import urllib.request as u; print('got', u.urlopen('{thief.stolen}meta-data', timeout=5).status)"
    said = await thief.runs(
        f"{device}; own=$(ip -o -4 addr show dev $dev scope global | awk '{{print $4}}')\n"
        f"ip addr flush dev $dev scope global; ip addr add {taken}/24 dev $dev\n"
        f'python3 -c "{fetch}"\n'
        f"old=$(cat /sys/class/net/$dev/address); ip link set dev $dev address {thief.mac}\n"
        f'python3 -c "{fetch}"\n'
        "ip link set dev $dev address $old; ip addr flush dev $dev scope global; ip addr add $own dev $dev\n"
        "ip route replace default via " + host + "; echo restored\n"
    )
    assert said.split() == ["restored"]
    assert taken not in Path("/proc/net/arp").read_text(), "the host has not heard of it"
    assert await thief.fetches(f"{thief.seed}meta-data") == "200"


async def test_a_guest_does_not_reach_the_platform(thief: Thief) -> None:
    up, host = thief.guest.up, thief.seed.split("/")[2].split(":")[0]
    assert await thief.reaches(host, up.seed_port)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        assert not await thief.reaches(host, port), "a port of the host, as of the bus, of Postgres or of the gateway"
        assert not await thief.reaches(host, 22)
    finally:
        server.close()
