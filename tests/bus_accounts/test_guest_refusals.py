"""What the data source refuses to guests is recorded for auditors."""

from typing import Any

import httpx

from domain.contract import Refusal
from domain.contract.guest_data import GuestSeed
from domain.contract.refusal import OTHERS, RefusedGuest
from eventstore.log.jetstream import Stream
from projections.guest_data.copies import Copies
from projections.guest_data.source import Source
from projections.guest_data.status import Status
from runtime import subjects
from runtime.bus.refusal_records import MOST, RefusalRecords
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
