"""An event that fits, and that handlers did not write: it is seen, changes nothing, and stops nobody."""

from datetime import UTC, datetime

import pytest

from domain.vm import VmChanged, evolve
from eventstore.log.envelope import Context, Ref
from eventstore.log.macs import EventKeys
from eventstore.log.store import Change, EventStore
from runtime.bus.quick_client import QuickClient
from tests.event_keys import STRANGERS
from tests.gateway.platform import VMS, Platform
from tests.waiting import eventually


@pytest.mark.parametrize(("keys", "says"), [(None, "has no MAC"), (STRANGERS, "not in the file of event keys")])
async def test_a_forged_event_is_shown_and_stops_nobody(api: Platform, keys: EventKeys | None, says: str) -> None:
    vm = (await api.running())["vm"]
    pids = [process.pid for process in api.side.processes if process.returncode is None]
    ref = Ref("default", "vm", vm["id"])
    before, healthy = await api.get(f"{VMS}/{vm['id']}"), await api.get("/healthz")
    nc = QuickClient()
    await nc.connect(api.side.nats.url)
    at = datetime.now(UTC)
    event = VmChanged(at=at, operation="o", fingerprint="f", deadline=at, name="forged")
    tip = (await api.side.store.load(ref, evolve, fresh=True)).tip
    [forged] = await EventStore(nc, keys).append([Change(tip, [event])], Context(actor="user:mallory"))
    await nc.close()

    async def shown() -> bool:
        health = await api.get("/healthz")
        return bool(health["status"] == "degraded" and health["parked"] == healthy["parked"] + 1)

    await eventually(shown, "degraded")
    record = await api.get(f"/v1/parked/log/{forged.position}")
    assert says in record["error"]
    after = await api.get(f"{VMS}/{vm['id']}?min_position={forged.position}")
    assert (after["name"], after["version"]) == (before["name"], before["version"])
    stopped = await api.call("POST", f"{VMS}/{vm['id']}/stop", {"force": True})
    assert stopped.status_code == 202, "a true event takes the place of the forged one"
    assert pids == [process.pid for process in api.side.processes if process.returncode is None]
    answer = await api.call("POST", f"/v1/parked/log/{forged.position}/drop", {"reason": "seen"})
    assert answer.status_code == 200

    async def closed() -> bool:
        return bool((await api.get("/healthz"))["parked"] == healthy["parked"])

    await eventually(closed, "no longer open")
