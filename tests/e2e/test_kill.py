"""kill -9 of each process in the middle of a create: the VM still reaches running, exactly once, by itself."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from runtime.local.libvirtd import Libvirt
from tests.e2e.platform import Platform, domains, platform
from tests.waiting import eventually

pytestmark = pytest.mark.qemu

VM = {"name": "kill", "image": "blank", "vcpus": 1, "memory_mib": 64, "disk_gib": 1}
VMS = "/v1/projects/default/vms"


@pytest.fixture(scope="module")
async def up(libvirt_qemu: Libvirt) -> AsyncIterator[Platform]:
    async with platform() as made:
        await made.blank_image()
        yield made


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("role", ["gateway", "handlers", "projections", "guest-data", "node"])
async def test_a_role_is_killed_during_a_create(up: Platform, role: str, seconds: float) -> None:
    await create_once(up, role, seconds)


@pytest.mark.parametrize("server", ["nats", "postgres"])
async def test_a_server_is_killed_during_a_create(up: Platform, server: str) -> None:
    await create_once(up, server, 0.05)


async def create_once(up: Platform, victim: str, seconds: float) -> None:
    """Create while the victim dies `seconds` after the request went out; check that there is one VM, started once."""
    key = str(uuid.uuid4())
    creating = asyncio.create_task(up.call("POST", VMS, VM, **{"Idempotency-Key": key}))
    await asyncio.sleep(seconds)
    up.kill(victim)
    accepted = await creating
    vm = accepted["vm"]["id"]
    done = await up.finished(accepted["operation"]["id"])
    assert done["status"] == "succeeded", (done, up.logs())
    again = await up.call("POST", VMS, VM, **{"Idempotency-Key": key})
    assert again["vm"]["id"] == vm

    types = await up.event_types(vm)
    assert types.count("VmRequested") == types.count("VmScheduled") == types.count("VmStarted") == 1, types
    page = await up.call("GET", f"{VMS}?limit=500")
    assert [found["id"] for found in page["items"]] == [vm]
    assert domains(up.home) == [vm]

    await up.succeed("DELETE", f"{VMS}/{vm}")
    assert domains(up.home) == []


async def test_up_again_on_the_same_directory_goes_on(up: Platform) -> None:
    """Ctrl-C leaves the guest running; a second `up` finds it, and so does one after kill -9 of `up` itself."""
    accepted = await up.succeed("POST", VMS, VM)
    vm = accepted["vm"]["id"]
    assert await up.down() == 0
    assert domains(up.home) == [vm]
    await up.up()
    assert (await up.call("GET", f"{VMS}/{vm}"))["phase"] == "running"

    assert up.process
    up.process.kill()
    await up.process.wait()
    await up.up()
    await up.succeed("POST", f"{VMS}/{vm}/stop", {"force": True})

    async def off() -> bool:
        return bool((await up.call("GET", f"{VMS}/{vm}"))["phase"] == "stopped")

    await eventually(off, "stopped")
    types = await up.event_types(vm)
    assert types.count("VmStarted") == 1, types
    await up.succeed("DELETE", f"{VMS}/{vm}")
    assert domains(up.home) == []


async def test_after_all_that_the_log_is_whole_and_the_views_are_what_it_says(up: Platform) -> None:
    assert (await up.nebula("verify", "log"))["findings"] == []
    assert (await up.nebula("verify", "views"))["differing"] == []
    rebuilt = await up.nebula("rebuild")
    assert (await up.nebula("verify", "views"))["differing"] == []
    page = await up.call("GET", f"/v1/events?limit=1&min_position={rebuilt['position']}")
    assert page["items"]
