"""The node of the platform's own host joins as others do: the log knows its key, and ends it."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench import homes
from domain.enrollment import fingerprint_of
from node_daemon.membership.credentials import Files, Held
from runtime.bus import bus
from runtime.bus.accounts import credentials
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import SIMULATION, Account
from runtime.tasks.patience import CannotRun
from tests.e2e.platform import Json, Platform, platform
from tests.waiting import eventually

NODE = "e2e"
ENROLLMENT = f"/v1/enrollments/{NODE}"
SIMULATED = {"NEBULA_LIBVIRT_URI": "test:///default"}
#: Credentials of nodes are valid for 18 seconds, and are renewed after 6.
SHORT = {"NEBULA_NODE_CREDENTIAL_HOURS": "0.005"}


@pytest.fixture
async def cloud() -> AsyncIterator[Platform]:
    async with platform(**SIMULATED) as made:
        yield made


def held(made: Platform) -> Held:
    found = Files(made.home).held()
    assert found is not None
    return found


async def status(made: Platform) -> str:
    found: str = (await made.call("GET", f"/v1/nodes/{NODE}"))["status"]
    return found


async def works(made: Platform) -> None:
    async def ready() -> bool:
        return await status(made) == "ready"

    await eventually(ready, "the node works")


async def says(made: Platform, text: str) -> None:
    async def said() -> bool:
        return any(text in line for line in made.printed)

    await eventually(said, text)


async def join(made: Platform, token: Json) -> None:
    """Run on a host what `nebula node token` prints."""
    command = [sys.executable, "-m", "cli.main", *token["command"].split()[1:]]
    process = await asyncio.create_subprocess_exec(*command, env=made.env)
    assert await process.wait() == 0


async def joins(made: Platform) -> list[Json]:
    rows = (await made.call("GET", "/v1/events?limit=500"))["items"]
    return [row for row in rows if row["type"].endswith("NodeJoined")]


async def test_it_joins_once_and_is_revoked_until_it_joins_again(cloud: Platform) -> None:
    enrolled = await cloud.call("GET", ENROLLMENT)
    first = held(cloud)
    assert (enrolled["status"], enrolled["public_key"]) == ("joined", first.public_key)
    assert first.own and first.keyed and first.signed
    assert not list((cloud.home / "bus").glob("node-*.creds"))

    assert await cloud.down() == 0
    await cloud.up()
    assert held(cloud).public_key == first.public_key
    assert len(await joins(cloud)) == 1
    await works(cloud)

    await cloud.nebula("node", "revoke", NODE)
    await says(cloud, f"nebula node token {NODE}")
    assert first.public_key in Authority(cloud.home).revoked()[Account.NODES]
    assert "revoked" in (cloud.home / "log" / "node.log").read_text()

    assert await cloud.down() == 0
    await cloud.up()  # without its node
    assert any(f"node {NODE}" in line or f"{NODE} has no valid key" in line for line in cloud.printed)
    assert len(await joins(cloud)) == 1, "a revoked node does not join by itself"

    token = await cloud.nebula("node", "token", NODE)
    await join(cloud, token)
    assert held(cloud).public_key != first.public_key
    await works(cloud)


async def test_a_host_that_joins_under_its_name_ends_it(cloud: Platform) -> None:
    mine = held(cloud).public_key
    token = await cloud.nebula("node", "token", NODE)
    with homes.home("other") as other:
        theirs = Platform(other, cloud.port, cloud.seed_port, cloud.settings)
        await join(theirs, token)
    await says(cloud, "another host joined")
    assert mine in Authority(cloud.home).revoked()[Account.NODES]


async def test_a_home_of_before_and_new_keys_of_the_bus() -> None:
    """The node had a credential of the supervisor, and joins. With new keys of the bus it joins again."""
    async with platform(**SIMULATED) as made:
        assert await made.down() == 0
        shutil.rmtree(made.home / "node" / "credentials")
        for store in ("nats", "postgres"):
            shutil.rmtree(made.home / store)
        authority = Authority(made.home)
        authority.renew("node", NODE)
        old = credentials.read(authority.file(f"node-{NODE}")).public
        await made.up()
        await works(made)
        assert old in Authority(made.home).revoked()[Account.NODES]
        assert not authority.file(f"node-{NODE}").exists()
        first = held(made).public_key

        assert await made.down() == 0
        shutil.rmtree(made.home / "bus")
        await made.up()
        await works(made)
        assert held(made).public_key != first
        enrolled = await made.call("GET", ENROLLMENT)
        assert enrolled["fingerprint"] == fingerprint_of(held(made).public_key)


async def test_a_folder_that_was_lost_does_not_take_the_name_from_another_host(cloud: Platform) -> None:
    assert await cloud.down() == 0
    shutil.rmtree(cloud.home / "node" / "credentials")
    await cloud.up()
    await says(cloud, f"nebula node token {NODE}")
    assert len(await joins(cloud)) == 1


async def test_it_is_renewed_and_signed_again_after_it_expired() -> None:
    async with platform(**SIMULATED, **SHORT) as made:
        first = held(made)

        async def renewed() -> bool:
            return held(made).received_at > first.received_at

        await eventually(renewed, "the daemon renews it")
        assert held(made).own
        key = held(made).public_key
        assert await made.down() == 0

        async def expired() -> bool:
            return credentials.expired(credentials.read(Files(made.home).creds))

        await eventually(expired, "it expires", 60)
        await made.up()
        await works(made)
        assert held(made).public_key == key
        assert len(await joins(made)) == 1


async def test_only_simulated_platforms_have_a_credential_for_all_nodes() -> None:
    """One of before is revoked. `nebula node --simulate` makes one, until the next start."""
    async with platform(**SIMULATED) as made:
        file = made.credential(SIMULATION)
        assert not file.exists()
        command = [sys.executable, "-m", "cli.main", "node", "--simulate", "1", "--prefix", "lab"]
        more = {"NEBULA_NODE_DATA": str(made.home / "lab")}
        process = await asyncio.create_subprocess_exec(*command, env=made.env | more)

        async def seen() -> bool:
            found = (await made.call("GET", "/v1/nodes"))["items"]
            return {each["id"]: each["status"] for each in found}.get("lab-001") == "ready"

        await eventually(seen, "the simulated node works")
        process.terminate()
        await process.wait()
        stolen = credentials.read(file)
        copy = made.home / "stolen.creds"
        shutil.copy(file, copy)
        nc = await bus.connect(made.on_bus(SIMULATION), "tests")
        await nc.close()

        assert await made.down() == 0
        await made.up()
        assert not file.exists()
        assert stolen.public in Authority(made.home).revoked()[Account.NODES]
        settings = made.on_bus(None).model_copy(update={"nats_creds": copy})
        with pytest.raises(CannotRun, match="revoked"):
            await bus.connect(settings, "tests")


async def test_the_home_of_another_platform_is_refused(cloud: Platform, tmp_path: Path) -> None:
    assert await cloud.down() == 0
    file = Files(cloud.home).folder / "node.json"
    file.write_text(held(cloud).model_copy(update={"own": False}).model_dump_json())
    shutil.rmtree(cloud.home / "bus")
    with pytest.raises(AssertionError, match="is that of node e2e of the platform"):
        await cloud.up()
