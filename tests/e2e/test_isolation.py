"""Stock Debian 12 and 13 on one bridge, in different projects: neither reaches the other, the host, or its secrets."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import libvirt
import libvirt_qemu
import pytest
import yaml

from cli.local.image_build import build_debian_image
from runtime.local.libvirtd import Libvirt
from tests.e2e.guests import Guest
from tests.e2e.platform import Platform, platform
from tests.e2e.test_boot import cache_folder
from tests.node_daemon.test_seed_disk import content
from tests.waiting import eventually

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(1200)]

IMAGES = {"debian-12": "bookworm", "debian-13": "trixie"}


@dataclass
class Tenant:
    """A guest with the address and the secret that it has."""

    guest: Guest
    address: str
    seed: str

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
async def tenants(libvirt_qemu: Libvirt) -> AsyncIterator[dict[str, Tenant]]:
    cache = cache_folder()
    files = {
        name: await asyncio.to_thread(build_debian_image, suite, cache / f"{name}.qcow2", progress=print, cache=cache)
        for name, suite in IMAGES.items()
    }
    connection = libvirt.open("qemu:///system")
    async with platform() as up:
        guests: dict[str, Guest] = {}
        for name, file in files.items():
            await up.succeed("POST", "/v1/images", {"id": name, "source": str(file.path), "sha256": file.sha256})
            await up.succeed("POST", "/v1/projects", {"id": name, "name": name})
            body = {
                "name": name,
                "image": name,
                "vcpus": 1,
                "memory_mib": 512,
                "disk_gib": 4,
                "user_data": "#!/bin/sh\n",
            }
            made = await up.succeed("POST", f"/v1/projects/{name}/vms", body)
            vm = made["vm"]["id"]
            guests[name] = Guest(up, f"/v1/projects/{name}/vms/{vm}", connection.lookupByUUIDString(vm))
        found: dict[str, Tenant] = {}
        for name, guest in guests.items():
            shown = await guest.until_ready(1)
            try:
                await guest.agent_answers()
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}: {(await guest.asked()).text}") from None
            found[name] = Tenant(guest, shown["addresses"][0], seed_url(up, guest.vm))
        yield found
    connection.close()


def seed_url(up: Platform, vm: str) -> str:
    held = content(up.home / "node" / "disks" / vm / "cidata.iso")
    url: str = yaml.safe_load(held["meta-data"])["seedfrom"]
    return url


async def test_a_stolen_secret_opens_nothing_for_another_guest(tenants: dict[str, Tenant]) -> None:
    owner, thief = tenants.values()
    up = owner.guest.up
    assert await owner.fetches(f"{owner.seed}meta-data") == "200"
    for document in ("meta-data", "user-data", "vendor-data"):
        assert await thief.fetches(f"{owner.seed}{document}") == "404"
    base = owner.seed.rsplit("/", 2)[0]
    async with httpx.AsyncClient() as http:
        token = (up.home / "guest-data.token").read_text().strip()
        metrics = (await http.get(f"{base}/metrics", headers={"Authorization": f"Bearer {token}"})).text
    assert 'nebula_guest_data_refusals_total{cause="address"} 3.0' in metrics
    assert "is not an address of the VM" in (up.home / "log" / "guest-data.log").read_text()


async def test_a_guest_that_takes_the_address_of_another_is_heard_by_nobody(tenants: dict[str, Tenant]) -> None:
    owner, thief = tenants.values()
    assert await owner.fetches(f"{owner.seed}meta-data") == "200"
    device = "dev=$(ip -o route show default | sed 's/.* dev //;s/ .*//')"
    mac = await owner.runs(f"{device}; cat /sys/class/net/$dev/address")
    host = owner.seed.split("/")[2].split(":")[0]
    fetch = f"import urllib.request as u; print('got', u.urlopen('{owner.seed}meta-data', timeout=5).status)"
    taken = await thief.runs(
        f"{device}; own=$(ip -o -4 addr show dev $dev scope global | awk '{{print $4}}')\n"
        f"ip addr flush dev $dev scope global; ip addr add {owner.address}/24 dev $dev\n"
        f"ping -c 2 -W 2 {host} >/dev/null && echo by-address\n"
        f'python3 -c "{fetch}"\n'
        f"old=$(cat /sys/class/net/$dev/address); ip link set dev $dev address {mac.strip()}\n"
        f"ping -c 2 -W 2 {host} >/dev/null && echo by-mac\n"
        f'python3 -c "{fetch}"\n'
        "ip link set dev $dev address $old; ip addr flush dev $dev scope global; ip addr add $own dev $dev\n"
        "ip route replace default via " + host + "; echo restored\n"
    )
    assert taken.split() == ["restored"]
    assert await owner.fetches(f"{owner.seed}meta-data") == "200"
    assert await thief.fetches(f"{thief.seed}meta-data") == "200"


async def test_guests_reach_neither_the_platform_nor_other_projects(tenants: dict[str, Tenant]) -> None:
    owner, thief = tenants.values()
    up, host = owner.guest.up, owner.seed.split("/")[2].split(":")[0]
    assert await thief.reaches(host, up.seed_port)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        assert not await thief.reaches(host, port), "a port of the host, as of the bus, of Postgres or of the gateway"
        assert not await thief.reaches(host, 22)
    finally:
        server.close()
    assert not await thief.reaches(owner.address, 22)
    assert await thief.runs(f"ping -c 2 -W 2 {owner.address} >/dev/null && echo reached") == ""
    assert Path("/proc/net/arp").read_text().count(owner.address) == 1
