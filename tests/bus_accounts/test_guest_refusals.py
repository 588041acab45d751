"""What the data source refuses to guests is recorded for auditors."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx

from domain.contract.guest_data import GuestSeed
from eventstore.log.jetstream import Stream
from gateway.access import refusals
from gateway.access.refusals import Refusals
from projections.guest_data.copies import Copies
from projections.guest_data.source import Source
from projections.guest_data.status import Status
from runtime import subjects
from runtime.bus import bus
from runtime.bus.malformed import Malformed
from runtime.bus.refusal_records import MOST, RefusalRecords
from runtime.bus.refused_calls import OTHERS, Refusal, RefusedGuest, refused_packets
from tests.attacks.serving import Given
from tests.bus_accounts.conftest import Guarded
from tests.waiting import eventually

VM, SECRET = "11111111-2222-4333-8444-777777777777", "S" * 32
THIEF, HOST = "192.0.2.11", "192.0.2.1"


async def recorded(guarded: Guarded, count: int) -> list[Refusal]:
    stream = Stream(guarded.connections["handlers"], subjects.REFUSALS, timeout=5)

    async def found() -> list[Refusal]:
        read = [Refusal.model_validate_json(each.body) for each in await stream.read(0, subjects.REFUSALS_OF_ALL)]
        return read if len(read) >= count else []

    result: list[Refusal] = await eventually(found, "refusals are recorded")
    return result


async def test_a_stolen_secret_is_seen(guarded: Guarded) -> None:
    records = RefusalRecords[RefusedGuest](guarded.connections["guest-data"], subjects.refusal("guests"))
    seed = GuestSeed(project="p", vm=VM, meta_data="", user_data=b"secret")
    asker, copies = Given({SECRET: seed}), Copies(None)
    status = Status(asker, copies.__len__, None)
    source = Source(asker, copies, status, neighbours=lambda *_: frozenset(), records=records)

    async def from_thief(scope: Any, receive: Any, send: Any) -> None:
        await source({**scope, "client": (f"::ffff:{THIEF}", 40000), "server": (HOST, 8775)}, receive, send)

    transport = httpx.ASGITransport(app=from_thief)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}:8775") as http:
        for path in (f"/{SECRET}/user-data", f"/{SECRET}/user-data", f"/{'U' * 32}/meta-data"):
            assert (await http.get(path)).status_code == 404
    await records.publish()
    stolen, guessed = await recorded(guarded, 2)
    assert (stolen.code, stolen.credential, stolen.address, stolen.path, stolen.count) == (
        *("guest_address", f"vm:{VM}", THIEF),
        *("user-data", 2),
    )
    assert (guessed.code, guessed.credential, guessed.address) == ("guest_secret", None, THIEF)
    assert all(SECRET not in each.model_dump_json() for each in (stolen, guessed))


async def test_who_tries_a_lot_hides_nobody(guarded: Guarded) -> None:
    records = RefusalRecords[RefusedGuest](guarded.connections["guest-data"], subjects.refusal("guests"))
    for number in range(1000):
        records.note(RefusedGuest(404, "guest_secret", f"192.0.2.{number % 250}", None, "GET", "meta-data"))
    await records.publish()
    found = await recorded(guarded, MOST + 1)
    assert len(found) == MOST + 1
    assert sum(each.count for each in found) == 1000
    assert found[-1].address == OTHERS


async def gateways(guarded: Guarded, malformed: Malformed) -> list[bus.Connection]:
    """Two gateways, which record what nodes say."""
    made = [await bus.connect(guarded.settings("gateway"), f"gateway-{number}") for number in range(2)]
    for nc in made:
        await Refusals(nc, 5, (), malformed).listen()
        await nc.flush()
    await guarded.settled()
    return made


async def test_packets_that_a_node_drops_are_seen_once(guarded: Guarded) -> None:
    listening = await gateways(guarded, Malformed())
    for node in ("n1", "n2"):
        records = RefusalRecords[RefusedGuest](guarded.connections[f"node-{node}"], subjects.node_refusals(node))
        records.note(refused_packets("iptables", VM), 3)
        records.note(refused_packets("iptables", VM), 4)
        records.note(refused_packets("nftables bridge", None), 1)
        await records.publish()
    await recorded(guarded, 4)
    await asyncio.sleep(0.2)  # for a second record of the same
    found = await recorded(guarded, 4)
    for nc in listening:
        await nc.close()
    assert {(one.status, one.code, one.method) for one in found} == {(403, "guest_packets", "PACKET")}
    assert sorted((str(one.actor), one.path, str(one.credential), one.count) for one in found) == [
        ("node:n1", "iptables", f"vm:{VM}", 7),
        ("node:n1", "nftables bridge", "None", 1),
        ("node:n2", "iptables", f"vm:{VM}", 7),
        ("node:n2", "nftables bridge", "None", 1),
    ]


async def test_a_node_accuses_nobody_else_and_hides_nobody(guarded: Guarded) -> None:
    malformed = Malformed()
    listening = await gateways(guarded, malformed)
    nc, own = guarded.connections["node-n1"], subjects.node_refusals("n1")
    told = refused_packets("iptables", VM).record(datetime(2020, 1, 1, tzinfo=UTC), 1)
    said = Refusal.model_validate_json(told).model_dump(mode="json")
    for wrong in ({"code": "unauthorized"}, {"credential": "abcdefabcdef"}, {"count": 0}):
        await nc.publish(own, json.dumps({**said, **wrong}).encode())
    await nc.publish(own, json.dumps({**said, "actor": "user:alice", "address": "9.9.9.9", "status": 401}).encode())
    await nc.publish(own, b"nonsense")
    await nc.publish(subjects.node_refusals("n2"), told)
    await guarded.settled()
    (found,) = await recorded(guarded, 1)
    assert (found.status, found.actor, found.address, found.credential) == (403, "node:n1", "", f"vm:{VM}")
    assert found.at.year > 2020
    counted = malformed.of("refusals")
    assert counted is not None and counted.count == 4
    for _ in range(2 * refusals.MOST_OF_NODE + 10):
        await nc.publish(own, told)
    await guarded.connections["node-n2"].publish(subjects.node_refusals("n2"), told)
    await guarded.settled()

    async def both() -> bool:
        return {one.actor for one in await recorded(guarded, 1)} == {"node:n1", "node:n2"}

    await eventually(both, "the other node is heard")
    assert len(await recorded(guarded, 1)) <= 101, "the newest 100 of each node"
    for each in listening:
        await each.close()
