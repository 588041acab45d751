"""Two whole daemons that have their keys, on a bus without accounts: one is an attacker. Handlers are real ones."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from domain.contract import Desired, Heartbeat, LeaseNote, Wanted
from domain.node import Node, evolve as evolve_node
from eventstore.documents import Documents
from eventstore.log.envelope import Ref
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import SimulatedHost
from runtime import subjects
from runtime.node_keys import HEARTBEAT, MAC, REPORT, WANTED, NodeKeys, node_keys
from tests.handlers.platform import WriteSide, write_side
from tests.node_process import NodeProcess, node_process, simulated
from tests.waiting import eventually

VICTIM, ATTACKER = "victim-001", "attacker-001"


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[WriteSide]:
    async with write_side(tmp_path, NEBULA_NODE_TIMEOUT="2", NEBULA_UNSIGNED_NODES="false") as made:
        await made.start()
        await made.cloud()
        yield made


def keys(side: WriteSide) -> NodeKeys:
    return node_keys(side.home / "node.keys")


async def node(side: WriteSide, name: str) -> Node | None:
    return (await side.store.load(Ref("system", "node", name), evolve_node, fresh=True)).state


def is_on(daemon: NodeProcess, vm: str) -> bool:
    folder = daemon.home / "simulated-victim" / "hosts.sqlite"
    with closing(SimulatedHost(VICTIM, HostStore(folder))) as found:
        return vm in found.running()


async def test_what_a_node_knows_is_worth_nothing_to_another_node(side: WriteSide) -> None:
    signing = {"NEBULA_NODE_KEYS_FILE": str(side.home / "node.keys")}
    async with (
        node_process(side.home / "v", side.nats.url, *simulated("victim"), **signing) as victim,
        node_process(side.home / "a", side.nats.url, *simulated("attacker"), **signing),
    ):
        for name in (VICTIM, ATTACKER):

            async def signs(name: str = name) -> bool:
                return (found := await node(side, name)) is not None and found.signs

            await eventually(signs, "it has signed")
        vm = await side.create(region="victim")
        await eventually(lambda: side.has("default", "vm", vm, "VmStarted"), "it runs")
        await wanted_document(side, vm)
        await asyncio.sleep(1)  # several ticks of the daemon
        assert is_on(victim, vm)
        assert not {"VmStopped", "VmFailed"} & set(await side.types("default", "vm", vm))
        await dead_node(side, victim)


async def wanted_document(side: WriteSide, vm: str) -> None:
    """A report whose body is a document for the victim is delivered on the victim's subject."""

    async def settled() -> Wanted | None:
        found = await side.wanted(vm)
        return found if found is not None and found.disk_made else None

    true: Wanted = await eventually(settled, "the document of a VM that has started")
    evil = true.model_copy(update={"generation": true.generation + 9, "desired": Desired.ABSENT})
    subject, body = subjects.wanted(VICTIM, "vm", vm), evil.model_dump_json().encode()
    js = side.nc.jetstream()
    report = subjects.report(ATTACKER, "vm", vm)
    for label, at in ((WANTED, subject), (REPORT, report)):
        mac = keys(side).mac(ATTACKER, label, at, body)
        ack = await js.publish(report, body, headers={MAC: mac})
        before = (await js.stream_info(subjects.WANTED)).state.last_seq
        await side.nc.publish(f"$JS.API.DIRECT.GET.{subjects.REPORTS}.{report}", b"", reply=subject)

        async def replaced(before: int = before) -> bool:
            info = await js.stream_info(subjects.WANTED)
            found = (await Documents(side.nc, subjects.WANTED).all(subject))[0]
            valid = keys(side).valid(VICTIM, WANTED, subject, found.body, found.mac)
            # Its generation is higher if the VM has reported its addresses meanwhile.
            now = Wanted.model_validate_json(found.body)
            same = now.model_copy(update={"generation": true.generation}) == true and now.generation < evil.generation
            return info.state.last_seq > before + 1 and valid and same

        await eventually(replaced, "handlers write the true document again")
        parked = subjects.parked("reports", str(ack.seq))

        async def is_parked(parked: str = parked) -> bool:
            return bool((await side.nc.jetstream().stream_info(subjects.PARKED, subjects_filter=parked)).state.subjects)

        await eventually(is_parked, "the report is none, and is parked")


async def dead_node(side: WriteSide, victim: NodeProcess) -> None:
    """The victim is dead. Neither its own heartbeats, sent again, nor the attacker's bring it back."""
    heard: list[tuple[bytes, dict[str, str]]] = []

    async def note(msg: object) -> None:
        heard.append((msg.data, dict(msg.headers or {})))  # type: ignore[attr-defined]

    listening = await side.nc.subscribe(subjects.heartbeat(VICTIM), cb=note)
    await eventually(lambda: len(heard) > 3, "heartbeats")
    await listening.unsubscribe()
    await victim.kill()

    async def lost() -> bool:
        return (found := await node(side, VICTIM)) is not None and found.lost

    await eventually(lost, "the node is lost")
    beat = Heartbeat.model_validate_json(heard[-1][0])
    forged = beat.model_copy(update={"sequence": beat.sequence + 100}).model_dump_json().encode()
    subject = subjects.heartbeat(VICTIM)
    theirs = keys(side).mac(ATTACKER, HEARTBEAT, subject, forged)
    sent = [*heard, (forged, heard[-1][1]), (forged, {}), (forged, {MAC: theirs})]
    before = (await side.ok("system", "health", "check", {}))["malformed"].get("heartbeats", {"count": 0})["count"]
    for body, headers in sent:
        await side.nc.publish(subject, body, headers=headers or None)

    async def counted() -> bool:
        found = (await side.ok("system", "health", "check", {}))["malformed"].get("heartbeats", {"count": 0})
        return bool(found["count"] >= before + len(sent))

    await eventually(counted, "each is counted")
    await asyncio.sleep(2.5)  # liveness looks every second
    assert await lost()
    assert "NodeRecovered" not in await side.types("system", "node", VICTIM)
    await lease_note(side, victim)


async def lease_note(side: WriteSide, victim: NodeProcess) -> None:
    """Handlers are away. The victim starts nothing by a note that the attacker made."""
    await side.stop_all()
    documents = Documents(side.nc, subjects.LEASES)
    subject = subjects.lease(VICTIM)
    true = (await documents.all(subject))[0]
    note = LeaseNote.model_validate_json(true.body)
    body = note.model_copy(update={"lease": note.lease + 1}).model_dump_json().encode()
    mac = keys(side).mac(ATTACKER, "lease", subject, body)
    position = await documents.put(subject, body, last=true.position, mac=mac)
    signing = {"NEBULA_NODE_KEYS_FILE": str(side.home / "node.keys")}
    async with node_process(victim.home, side.nats.url, *simulated("victim"), **signing) as again:
        await again.says("the lease note of this node cannot be read; nothing is started")
        await documents.put(subject, true.body, last=position, mac=true.mac)
        await again.says("the last lease was granted to this data folder, so work continues")
