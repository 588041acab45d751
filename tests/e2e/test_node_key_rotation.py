"""`nebula keys rotate-nodes` on a whole `nebula up`: VMs go on being commanded, and then the old keys are refused."""

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from domain.contract import Desired, NodeReport, Power, Wanted
from eventstore.documents import Document, Documents
from runtime import subjects
from runtime.bus import bus
from runtime.bus.accounts.table import SIMULATION
from runtime.node_keys import MAC, REPORT, WANTED, NodeKeys, derived, read_root, signed
from tests.e2e.platform import Json, Platform, platform
from tests.e2e.test_accounts import VMS, prepared, ready
from tests.waiting import eventually

QUICK = {"call": 0.001, "image": 0.1, "boot": 0.2, "lease": 0.1, "shutdown": 0.1}


@pytest.fixture
async def cloud() -> AsyncIterator[Platform]:
    async with platform(NEBULA_SIMULATE="2", NEBULA_SIMULATE_SECONDS=json.dumps(QUICK)) as made:
        await prepared(made)
        yield made


async def commanded(made: Platform, vm: str) -> None:
    """Its node does what it is told, and its reports count."""
    await made.succeed("POST", f"{VMS}/{vm}/stop", {"force": True})
    await made.succeed("POST", f"{VMS}/{vm}/start")
    assert (await made.call("GET", f"{VMS}/{vm}"))["phase"] == "running"


async def restarted(made: Platform, role: str) -> None:
    """A role is killed; `nebula up` starts it again."""
    before = made.pid(role)
    made.kill(role)
    await eventually(lambda: made.pid(role) != before, f"{role} is started again")


async def rotate(made: Platform, *options: str) -> tuple[int, str]:
    """`nebula keys rotate-nodes`: its exit status, and what it prints."""
    command = [sys.executable, "-m", "cli.main", "keys", "rotate-nodes", *options]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, env=made.env, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return await process.wait(), " ".join(said.decode().split())


async def node_of(made: Platform, vm: str) -> str:
    found: str = (await made.call("GET", f"{VMS}/{vm}"))["node"]
    return found


async def wanted(made: Platform, vm: str) -> Document:
    async with made.maintenance() as nc:
        [found] = await Documents(nc, subjects.WANTED).all(subjects.wanted("*", "vm", vm))
        return found


async def finished(made: Platform) -> None:
    """Remove the earlier root, once handlers have signed all documents with the new one."""

    async def done() -> bool:
        status, said = await rotate(made, "--finish")
        assert status == 0 or "are not signed with the new root" in said, said
        return status == 0

    await eventually(done, "the earlier root is removed", 60)


async def refuses_a_report(made: Platform, vm: str, old: NodeKeys) -> None:
    """One that says that a VM is off, from somebody who has stolen the old key of its node."""
    node = await node_of(made, vm)
    report = NodeReport(
        vm=vm, node=node, epoch=1, lease=1, sequence=1, at=datetime.now(UTC), power=Power.OFF, boots=1, addresses=()
    )
    subject, body = subjects.report(node, "vm", vm), report.model_dump_json().encode()
    headers = signed(derived(old.root, node), REPORT, subject, body)
    positions: list[int] = []
    nc = await bus.connect(made.on_bus(SIMULATION), "tests")
    async with made.maintenance() as operator:

        async def is_parked() -> bool:
            found = {each["position"]: each for each in await refused_reports(made)}
            if set(positions) & found.keys():
                return True
            # The stream keeps the newest report of a VM: one of the node may replace this one before it is read.
            newest = await operator.jetstream().get_last_msg(subjects.REPORTS, subject)
            if not positions or newest.seq != positions[-1]:
                positions.append((await nc.jetstream().publish(subject, body, headers=headers)).seq)
            return False

        try:
            await eventually(is_parked, "the report is parked")
        finally:
            await nc.close()
    for each in await refused_reports(made):
        if each["position"] not in positions:
            await was_read_late(made, each, old)


async def refused_reports(made: Platform) -> list[Json]:
    items = (await made.call("GET", "/v1/parked?source=reports"))["items"]
    return [each for each in items if "MAC is wrong" in each["error"]]


async def was_read_late(made: Platform, parked: Json, old: NodeKeys) -> None:
    """Handlers that stop may leave a report that the node signed before it had its new key. It is read again when they
    run again, which may be after the old key has ended. No report that is signed with the new key is refused.
    """
    whole = await made.call("GET", f"/v1/parked/reports/{parked['key']}")
    node, body = subjects.parse_report(whole["subject"])[0], base64.b64decode(whole["data_base64"])
    assert old.valid(node, REPORT, whole["subject"], body, whole["headers"][MAC]), whole


async def refuses_a_document(made: Platform, vm: str, old: NodeKeys) -> None:
    """One that wants a VM away, while no handlers run that would replace it."""
    before = await wanted(made, vm)
    node, _, _ = subjects.parse_wanted(before.subject)
    document = Wanted.model_validate_json(before.body)
    away = document.model_copy(update={"desired": Desired.ABSENT, "generation": document.generation + 1})
    body = away.model_dump_json().encode()

    def refused() -> int:
        return (made.home / "log" / "node.log").read_text().count("ignoring a malformed wanted document")

    earlier = refused()
    os.kill(made.pid("handlers"), signal.SIGSTOP)
    try:
        async with made.maintenance() as nc:
            mac = NodeKeys(old.root).mac(node, WANTED, before.subject, body)
            await Documents(nc, subjects.WANTED).put(before.subject, body, last=before.position, mac=mac)
        await eventually(lambda: refused() > earlier, "the node refuses it")
    finally:
        os.kill(made.pid("handlers"), signal.SIGCONT)

    async def is_replaced() -> bool:
        found = await wanted(made, vm)
        return read_root(made.home / "node.keys").valid(node, WANTED, found.subject, found.body, found.mac)

    await eventually(is_replaced, "handlers write the document again")
    assert (await made.call("GET", f"{VMS}/{vm}"))["phase"] == "running"


@pytest.mark.parametrize("how", ["role by role", "as a whole"])
async def test_vms_go_on_and_the_old_keys_end(cloud: Platform, how: str) -> None:
    async def restart() -> None:
        if how == "as a whole":
            assert await cloud.down() == 0
            await cloud.up()
        for role in ("handlers", "node") if how == "role by role" else ():
            await restarted(cloud, role)
            await commanded(cloud, vm)

    vm = await ready(cloud, "before")
    old = read_root(cloud.home / "node.keys")
    assert (await rotate(cloud))[0] == 0
    await commanded(cloud, vm)
    await restart()
    await commanded(cloud, vm)
    await finished(cloud)
    await restart()
    await commanded(cloud, vm)
    await ready(cloud, "after")
    new = read_root(cloud.home / "node.keys")
    assert old.root not in (new.root, new.earlier)
    await refuses_a_report(cloud, vm, old)
    await refuses_a_document(cloud, vm, old)
    await commanded(cloud, vm)
    types = await cloud.event_types(vm)
    assert not {"VmLost", "VmFailed", "VmCrashed"} & set(types), types
