"""What a VM has been through makes neither its row nor the replies about it grow, nor a command on it slow."""

import json
import uuid
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg

from domain import vm
from domain.vm.kind import VM
from domain.vm.verbs.stop import BY_POLICY
from eventstore.log.envelope import Context, Ref
from eventstore.log.store import Change, Conflict, EventStore
from runtime import subjects
from tests.gateway.platform import VMS, Platform
from tests.waiting import eventually

MANY, BATCH = 1000, 500
CONTEXT = Context(actor="tester")


def restarts(count: int) -> list[Any]:
    """A policy starts it again and again, and every start fails at once."""
    events: list[Any] = []
    for attempt in range(count):
        operation, at = str(uuid.uuid4()), datetime.now(UTC)
        asked = {"operation": operation, "fingerprint": BY_POLICY, "deadline": at, "attempt": attempt}
        events.append(vm.VmRestartedByPolicy(at=at, **asked))
        events.append(vm.VmFailed(at=at, operation=operation, code="crashed", detail="it crashed", phase="stopped"))
    return events


async def lived(store: EventStore, ref: Ref, events: list[Any]) -> None:
    """Append to a VM's history what nobody asked for."""

    async def stored(some: list[Any]) -> bool:
        loaded = await store.load(ref, vm.evolve)
        try:
            await store.append([Change(loaded.tip, some)], CONTEXT)
        except Conflict:
            return False
        return True

    for start in range(0, len(events), BATCH):
        await eventually(partial(stored, events[start : start + BATCH]), "stored")


async def reply_to_change(api: Platform, ref: Ref) -> bytes:
    context = {"actor": "tester", "grants": [["operator", None]], "operation": str(uuid.uuid4()), "fingerprint": "f"}
    body = json.dumps({"args": {"vm": ref.id, "labels": {"a": "b"}}, "context": context}).encode()
    reply = await api.side.nc.request(subjects.command("default", "vm", "change"), body, timeout=30)
    assert "ok" in json.loads(reply.data), reply.data
    return reply.data


async def shown(api: Platform, ref: Ref, reply: bytes) -> None:
    """Wait until the read models reflect what was just done, however many events are before it."""
    target = f"{VMS}/{ref.id}?min_position={json.loads(reply)['ok']['position']}"

    async def reached() -> bool:
        return (await api.http.get(target)).status_code == 200

    await eventually(reached, "the read models are there")


async def row_of(api: Platform, ref: Ref) -> str:
    async with await psycopg.AsyncConnection.connect(api.dsn) as conn:
        found = await (await conn.execute("SELECT v::text FROM nebula.vms v WHERE id = %s", [ref.id])).fetchone()
    assert found is not None
    return str(found[0])


async def test_neither_rows_nor_replies_grow_with_operations(api: Platform) -> None:
    made = await api.create(region="nowhere", restart_policy="always")
    ref = Ref("default", "vm", made["vm"]["id"])

    async def judged() -> bool:
        found = await api.get(f"{VMS}/{ref.id}?min_position={made['position']}")
        return bool(found["phase"] == "unschedulable")

    await eventually(judged, "placement has said all that it will ever say of it")
    await lived(api.side.store, ref, restarts(2))
    few = await reply_to_change(api, ref)
    await shown(api, ref, few)
    small = await row_of(api, ref)

    await lived(api.side.store, ref, restarts(MANY))
    many = await reply_to_change(api, ref)
    await shown(api, ref, many)
    digits = 60  # versions, positions and counters are longer
    assert len(many) < len(few) + digits
    assert len(await row_of(api, ref)) < len(small) + digits


def test_automatic_restarts_do_not_pile_up() -> None:
    """What people asked for is known for ever, and of what a policy did the end alone."""
    state: Any = None
    at, mine = datetime.now(UTC), str(uuid.uuid4())
    asked = {"operation": mine, "fingerprint": "f", "deadline": at}
    made = {"vm": str(uuid.uuid4()), "project": "p", "name": "n", "image": "i"}
    spec = vm.Spec(vcpus=1, memory_mib=512, disk_gib=4)
    for event in [vm.VmRequested(at=at, **asked, **made, spec=spec), *(again := restarts(MANY))]:
        state = vm.evolve(state, event)
    assert len(state.operations) < 10
    assert mine in state.operations
    assert again[-2].operation in state.operations
    assert state.operations[mine] == ("create", "f")
    assert b"restarted_by" not in VM.stored.dump_json(state)
