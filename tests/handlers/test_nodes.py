"""What nodes say is judged: the subject says who speaks, one daemon at a time, and counters have to be possible."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from nats.errors import TimeoutError as NatsTimeout

import domain.node
from domain.base import Rejected
from domain.contract import (
    Challenged,
    Daemon,
    Desired,
    HeartbeatAnswer,
    Introduction,
    KnownVms,
    LeaseGranted,
    NodeInfo,
    Power,
    Wanted,
)
from domain.node import Node, evolve as evolve_node
from eventstore.documents import Documents
from eventstore.log.envelope import Ref
from eventstore.log.judge import Tip
from eventstore.log.store import Loaded
from handlers.managers import liveness as module
from handlers.managers.liveness import MOST_UNKNOWN, Liveness
from handlers.nodes import registration
from handlers.nodes.registration import Registration
from handlers.world.world import World
from runtime import subjects
from runtime.local.servers import start_nats
from tests.domain.story import fold
from tests.domain.test_node import register
from tests.eventstore.log import connection
from tests.handlers.platform import WriteSide, daemon, write_side
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def cloud(servers_home: Path) -> AsyncIterator[WriteSide]:
    home = servers_home / f"nodes-{uuid.uuid4().hex[:8]}"
    home.mkdir()
    async with write_side(home, NEBULA_NODE_TIMEOUT="600") as made:
        await made.start()
        await made.cloud()
        await made.node("n1")
        yield made


def info(node: str, **more: object) -> NodeInfo:
    given = {"node": node, "region": "elsewhere", "vcpus": 1, "memory_mib": 64, "disk_gib": 1, "virt_type": "test"}
    return NodeInfo.model_validate({**given, "seed_url": "http://203.0.113.66/", "version": "0", **more})


async def known(cloud: WriteSide, node: str) -> Node:
    state = (await cloud.store.load(Ref("system", "node", node), evolve_node)).state
    assert state is not None
    return state


async def test_a_report_of_an_impossible_sequence_is_parked_and_the_vm_hears_the_next(cloud: WriteSide) -> None:
    vm = await cloud.create()
    on = await eventually(lambda: cloud.wanted(vm), "wanted document")
    for wrong in ({"sequence": 9 * 10**18}, {"lease": 99}, {"lease": 0}):
        await cloud.report(on, Power.OFF, boots=1, **wrong)
    subject = subjects.report("n1", "vm", vm)

    async def parked() -> bool:
        records = await Documents(cloud.nc, subjects.PARKED).all(subjects.PARKED_OF_ALL)
        return sum(subject.encode() in record.body for record in records) == 3

    await eventually(parked, "all three are parked")
    await cloud.report(on, Power.ON, boots=1)
    await eventually(lambda: cloud.has("default", "vm", vm, "VmStarted"), "it is heard")


async def test_a_node_registers_on_its_own_subject_only(cloud: WriteSide) -> None:
    said = Introduction(info=info("n1"), daemon=daemon("evil"))
    answer = await cloud.register(said, node="n2")
    assert (answer["problem"]["code"], answer["problem"]["field"]) == ("invalid_request", "info.node")
    by_command = await cloud.ask("system", "node", "register", {"node": "n1", "info": said.info.model_dump()})
    assert "problem" in by_command
    for body in (b"no json", b"{}", b"[" * 10_000):
        reply = await cloud.nc.request(subjects.register("n2"), body, timeout=10)
        assert b"problem" in reply.data
    assert (await known(cloud, "n1")).info.seed_url == "http://192.0.2.1:8775/"


async def test_a_second_daemon_of_a_name_is_refused_and_told_when_it_goes_on_all_the_same(cloud: WriteSide) -> None:
    other = daemon("n1", boot="other", identity="other")
    answer = await cloud.register(Introduction(info=info("n1", region="default"), daemon=other, heir=True))
    assert answer["problem"]["code"] == "node_taken"
    assert "host tests" in answer["problem"]["detail"] and "process 1" in answer["problem"]["detail"]
    assert (await known(cloud, "n1")).lease == cloud.leases["n1"]
    beat = {"node": "n1", "at": "2026-01-01T00:00:00Z", "boot": other.boot, "wanted_position": 0, "lease": 1}
    reply = await cloud.nc.request(subjects.heartbeat("n1"), str(beat).replace("'", '"').encode(), timeout=10)
    assert b"lease_lost" in reply.data


async def test_the_old_node_of_a_vm_that_moves_gets_a_tombstone(cloud: WriteSide) -> None:
    vm = await cloud.create()
    before = await eventually(lambda: cloud.wanted(vm), "wanted document")
    stale = before.model_copy(update={"node": "n0", "epoch": 0})
    await cloud.nc.jetstream().publish(subjects.wanted("n0", "vm", vm), stale.model_dump_json().encode())
    await cloud.nc.jetstream().publish(subjects.wanted("n1", "vm", vm), b"not json")
    await cloud.stop_all()
    await cloud.start()

    async def settled() -> bool:
        js = cloud.nc.jetstream()
        old = await js.get_last_msg("NEBULA_WANTED", subjects.wanted("n0", "vm", vm))
        new = await js.get_last_msg("NEBULA_WANTED", subjects.wanted("n1", "vm", vm))
        return b'"absent"' in (old.data or b"") and b'"on"' in (new.data or b"")

    await eventually(settled, "a tombstone on the old node, a document on the new one")


FORGED = [
    {"generation": 9 * 10**18, "desired": Desired.OFF},
    {"generation": 2**63 - 1, "desired": Desired.ABSENT},
    {"epoch": 2**31 - 1, "boots": 2**31 - 1},
    {"generation": 1, "desired": Desired.OFF},
    {"vcpus": 7},
]


async def test_a_forged_document_is_replaced_and_the_vm_hears_the_next_command(cloud: WriteSide) -> None:
    vm = await cloud.create()
    true = await eventually(lambda: cloud.wanted(vm), "wanted document")
    await cloud.report(true, Power.ON, boots=1)
    await eventually(lambda: cloud.has("default", "vm", vm, "VmStarted"), "it runs")
    js, subject = cloud.nc.jetstream(), subjects.wanted("n1", "vm", vm)

    async def stands(desired: str, behind: int) -> bool:
        message = await js.get_last_msg("NEBULA_WANTED", subject)
        try:
            found = Wanted.model_validate_json(message.data or b"")
        except ValueError:
            return False  # not replaced yet
        sane = found.generation < 100 and (found.epoch, found.boots, found.vcpus) == (true.epoch, true.boots, 1)
        return (message.seq or 0) > behind and found.desired == desired and sane

    bodies = [true.model_copy(update=each).model_dump_json().encode() for each in FORGED]
    for body in (*bodies, b"not json", b"[" * 5000):
        stored = await js.publish(subject, body)
        await eventually(lambda seq=stored.seq: stands("on", seq), f"replaced: {body[:60]!r}")  # type: ignore[misc]

    async def parked() -> bool:
        info = await js.stream_info("NEBULA_PARKED", subjects_filter=subjects.parked_of("wanted"))
        return len(info.state.subjects or {}) >= 2

    await eventually(parked, "what makes no sense is parked")
    forged = await js.publish(subject, bodies[0])
    await cloud.ok("default", "vm", "stop", {"vm": vm, "force": True})
    await eventually(lambda: stands("off", forged.seq), "the command reaches the node")


@pytest.mark.parametrize("epoch", [1, 2**31 - 1])
async def test_a_forged_document_on_another_node_becomes_a_tombstone(cloud: WriteSide, epoch: int) -> None:
    vm = await cloud.create()
    true = await eventually(lambda: cloud.wanted(vm), "wanted document")
    forged = true.model_copy(update={"node": "n9", "epoch": epoch, "generation": 9 * 10**18})
    subject = subjects.wanted("n9", "vm", vm)
    await cloud.nc.jetstream().publish(subject, forged.model_dump_json().encode())

    async def absent() -> bool:
        return b'"absent"' in ((await cloud.nc.jetstream().get_last_msg("NEBULA_WANTED", subject)).data or b"")

    await eventually(absent, "the other node lets go of it")


def test_a_daemon_whose_lease_nobody_ever_gave_is_told_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a log that was lost, or restored: unless it registers again, nobody ever hears it."""
    store: Any = None
    world = World()
    state: Node | None = fold(domain.node.evolve, domain.node.decide(None, register()))
    world._keep(ref := Ref("system", "node", "n1"), Loaded(state, Tip(ref, 1, 1)))
    liveness = Liveness(store, world, 60)

    def beat(name: str, lease: int) -> Rejected | Challenged | None:
        said = {"node": name, "at": "2026-01-01T00:00:00Z", "boot": "b", "wanted_position": 0, "lease": lease}
        return liveness.hear(subjects.heartbeat(name), json.dumps(said).encode())

    for name in ("n1", "nobody"):
        assert beat(name, 2**31 - 1) is None, "another handlers process may have given it a moment ago"
    monkeypatch.setattr(module, "UNKNOWN_LEASE", 0.0)
    for name in ("n1", "nobody"):
        lost = beat(name, 7)
        assert isinstance(lost, Rejected) and lost.code == "lease_lost" and "register again" in lost.detail
        assert beat(name, 0) is None, "it waits"
    for number in range(2 * MOST_UNKNOWN):
        beat(f"made-up-{number}", 1)
    assert len(liveness._unknown_leases) <= MOST_UNKNOWN


def test_a_node_that_asks_gets_what_the_log_knows_of_its_vms_and_any_other_gets_nothing() -> None:
    store: Any = None
    world, boot = World(), "b" * 32
    holder = Daemon(boot=boot, identity="i" * 32, host="h1", pid=1)
    request = register().model_copy(update={"daemon": holder})
    state: Node | None = fold(domain.node.evolve, domain.node.decide(None, request))
    world._keep(ref := Ref("system", "node", "n1"), Loaded(state, Tip(ref, 1, 1)))
    known = KnownVms(digest="0" * 32)
    liveness = Liveness(store, world, 60, known={"n1": known}.get)

    def beat(name: str, lease: int = 1, **more: Any) -> Rejected | Challenged | None:
        said = {"node": name, "at": "2026-01-01T00:00:00Z", "boot": boot, "wanted_position": 0, "lease": lease}
        return liveness.hear(subjects.heartbeat(name), json.dumps({**said, **more}).encode())

    assert beat("n1") is None, "a daemon of an earlier version does not ask"
    assert beat("n1", asks_known=True) == HeartbeatAnswer(challenge="", known=known)
    assert beat("n1", lease=0, asks_known=True) is None, "it waits for the lease"
    assert beat("nobody", asks_known=True) is None
    lost = beat("n1", boot="another", asks_known=True)
    assert isinstance(lost, Rejected) and lost.code == "lease_lost"


async def test_many_nodes_register_at_the_same_time_and_late_requests_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut. A request that its node has given up is not carried out, and delays no other."""
    nothing: Any = None
    served = Registration(nothing, nothing, nothing, 15)
    free, begun = asyncio.Event(), list[str]()

    async def answer(node_id: str, request: Introduction, *, signed: bool = False) -> LeaseGranted:
        begun.append(node_id)
        await free.wait()
        return LeaseGranted(lease=1)

    monkeypatch.setattr(served, "register", answer)
    monkeypatch.setattr(registration, "GIVEN_UP", 1.0)
    monkeypatch.setattr(served, "_turns", asyncio.Semaphore(20))
    server = await start_nats(tmp_path)
    try:
        async with connection(server.url) as nc:

            async def ask(number: int, seconds: float) -> bool:
                name = f"n{number}"
                body = Introduction(info=info(name), daemon=daemon(name)).model_dump_json().encode()
                with suppress(NatsTimeout):
                    return b'"lease"' in (await nc.request(subjects.register(name), body, timeout=seconds)).data
                return False

            await served.serve(nc)
            first = [asyncio.create_task(ask(number, 60)) for number in range(20)]
            await eventually(lambda: len(begun) == 20, "they are answered at the same time")
            assert await asyncio.gather(*(ask(number, 1.5) for number in range(20, 60))) == [False] * 40
            free.set()
            assert await asyncio.gather(*first) == [True] * 20
            assert await ask(60, 60) and len(begun) == 21, "nothing is done for those that gave up"
    finally:
        await server.stop()
