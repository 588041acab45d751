"""`nebula up` with accounts: all works, also after kills and restarts, and a home of before is taken over."""

import json
import shutil
from collections.abc import AsyncIterator

import pytest
from nats.errors import Error as NatsError

from runtime.bus import bus
from runtime.bus.accounts import credentials, revoking
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import Account
from runtime.tasks.patience import CannotRun
from tests.e2e.platform import Json, Platform, platform
from tests.waiting import eventually

PROJECT = "guarded"
VMS = f"/v1/projects/{PROJECT}/vms"
VM = {"image": "blank", "vcpus": 1, "memory_mib": 512, "disk_gib": 1}
ACCOUNTS = "NEBULA_BUS_ACCOUNTS"
QUICK = {"call": 0.001, "image": 0.1, "boot": 0.5, "lease": 0.2, "shutdown": 0.2}
SIMULATED = {"NEBULA_SIMULATE": "2", "NEBULA_SIMULATE_SECONDS": json.dumps(QUICK)}


@pytest.fixture(scope="module")
async def cloud() -> AsyncIterator[Platform]:
    async with platform(**SIMULATED) as made:
        await prepared(made)
        yield made


async def prepared(made: Platform) -> None:
    await made.blank_image()
    await made.succeed("POST", "/v1/projects", {"id": PROJECT, "name": "Guarded"})


async def ready(made: Platform, name: str) -> str:
    """The id of a new VM whose guest is ready."""
    accepted = await made.succeed("POST", VMS, {"name": name, **VM})
    vm: str = accepted["vm"]["id"]

    async def is_ready() -> bool:
        found = await made.call("GET", f"{VMS}/{vm}")
        return bool(found["phase"] == "running" and found["ready"])

    await eventually(is_ready, f"{name} is ready")
    return vm


async def feed(made: Platform, path: str, count: int) -> list[Json]:
    """The first events of a feed."""
    found: list[Json] = []
    async with made.client() as http, http.stream("GET", path, headers={"Nebula-After": "0"}) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
            if len(found) == count:
                break
    return found


async def whole(made: Platform) -> None:
    health = await made.call("GET", "/healthz")
    assert health["status"] == "ok", health


async def test_a_vm_is_made_followed_and_seen_in_the_past(cloud: Platform) -> None:
    vm = await ready(cloud, "first")
    types = await cloud.event_types(vm)
    assert {"VmRequested", "VmScheduled", "VmStarted", "VmGuestReady"} <= set(types)

    found = await feed(cloud, f"{VMS}/{vm}/feed?after=0", 3)
    assert "VmRequested" in json.dumps(found[0])
    events = (await cloud.call("GET", f"/v1/events?vm={vm}&limit=500"))["items"]
    then = await cloud.call("GET", f"{VMS}/{vm}?at={min(int(each['position']) for each in events)}")
    assert then["phase"] != "running"
    await cloud.succeed("POST", f"{VMS}/{vm}/stop", {"force": True})
    await cloud.succeed("DELETE", f"{VMS}/{vm}")
    await whole(cloud)


@pytest.mark.parametrize("victim", ["nats", "handlers", "gateway", "node"])
async def test_a_process_is_killed_and_all_goes_on(cloud: Platform, victim: str) -> None:
    before = await ready(cloud, f"before-{victim}")
    cloud.kill(victim)
    after = await ready(cloud, f"after-{victim}")
    for vm in (before, after):
        types = await cloud.event_types(vm)
        assert types.count("VmStarted") == 1, types
        await cloud.succeed("DELETE", f"{VMS}/{vm}")


async def test_up_again_keeps_everything(cloud: Platform) -> None:
    vm = await ready(cloud, "kept")
    position = (await cloud.call("GET", f"/v1/events?vm={vm}&limit=500"))["items"][-1]["position"]
    assert await cloud.down() == 0
    await cloud.up()
    assert (await cloud.call("GET", f"{VMS}/{vm}"))["phase"] == "running"
    assert (await cloud.call("GET", f"/v1/events?vm={vm}&limit=500"))["items"][-1]["position"] >= position
    await ready(cloud, "later")


async def test_nobody_connects_without_a_credential(cloud: Platform) -> None:
    with pytest.raises((CannotRun, NatsError)):
        await bus.connect(cloud.on_bus(None), "tests")

    async def seen() -> bool:
        rows = (await cloud.call("GET", "/v1/refusals"))["items"]
        return ("bus_credential", "CONNECT") in {(row["code"], row["method"]) for row in rows}

    await eventually(seen, "auditors see it")


async def test_the_operator_verifies_and_exports_the_log(cloud: Platform) -> None:
    """With the credential for maintenance, which the CLI finds in the home."""
    for name in ("NEBULA_NATS_URL", "NEBULA_NATS_CREDS"):
        assert name not in cloud.env
    report = await cloud.nebula("verify", "log")
    assert report["findings"] == [], report
    file = cloud.home / "exported.nebula"
    await cloud.nebula("export", str(file))
    assert file.stat().st_size > 1000


async def test_up_revokes_what_handlers_ask_it_to(cloud: Platform) -> None:
    """The node's connections end, and a new JWT for the same key is of no use; a restart of the server changes that
    in nothing.
    """
    authority = Authority(cloud.home)
    authority.renew("node", "guest-host")
    held = credentials.read(authority.file("node-guest-host")).public
    node = await bus.connect(cloud.on_bus("node-guest-host"), "tests-node")
    handlers = await bus.connect(cloud.on_bus("handlers"), "tests-handlers")
    await revoking.ask(handlers, held)
    await handlers.close()
    with pytest.raises(CannotRun, match="revoked"):
        await node.until_ended()
    assert held in Authority(cloud.home).revoked()[Account.NODES]
    cloud.kill("nats")
    await ready(cloud, "after-revocation")
    with pytest.raises(CannotRun, match="revoked"):
        await bus.connect(cloud.on_bus("node-guest-host"), "tests-node")


async def test_a_home_without_accounts_is_taken_over_and_may_get_new_keys() -> None:
    async with platform(**SIMULATED, **{ACCOUNTS: "0"}) as made:
        await prepared(made)
        vm = await ready(made, "old")
        types = await made.event_types(vm)
        await made.down()
        del made.settings[ACCOUNTS]
        await made.up()
        assert (await made.call("GET", f"{VMS}/{vm}"))["phase"] == "running"
        assert set(types) <= set(await made.event_types(vm))
        await ready(made, "new")
        await whole(made)

        old = made.credential("gateway").read_bytes()
        await made.down()
        shutil.rmtree(made.home / "bus")
        await made.up()
        assert made.credential("gateway").read_bytes() != old
        assert set(types) <= set(await made.event_types(vm))
        await ready(made, "with-new-keys")
        await whole(made)
