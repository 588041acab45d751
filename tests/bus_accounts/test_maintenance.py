"""What is done to the streams with the credential of maintenance is in the log, for auditors."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.client import Client

from cli.local import maintenance
from cli.local.maintenance import Call, MaintenanceRecords, parsed
from domain.maintenance import BusMaintained
from eventstore.log.keyring import begin
from eventstore.log.store import EventStore
from handlers import maintenance as recording
from runtime import subjects
from runtime.bus.accounts import credentials
from runtime.bus.accounts.table import API
from runtime.bus.malformed import Malformed
from tests.bus_accounts.conftest import Guarded


@pytest.fixture
async def store(guarded: Guarded) -> EventStore:
    nc = guarded.connections["handlers"]
    return EventStore(nc, await begin(guarded.home / "event.keys", EventStore(nc)))


@pytest.fixture
async def audit(guarded: Guarded, store: EventStore) -> AsyncIterator[MaintenanceRecords]:
    """As in `nebula up`, with handlers that record."""
    await recording.serve(guarded.connections["handlers"], store, Malformed())
    made = MaintenanceRecords(guarded.connections["authority"])
    await made.listen()
    await guarded.settled()
    yield made


async def recorded(guarded: Guarded, audit: MaintenanceRecords, store: EventStore) -> list[BusMaintained]:
    await guarded.settled()
    await audit.look()
    found = await store.read(0, subjects.events("system", "maintenance"))
    assert {one.context.actor for one in found} <= {"system:maintenance"}
    return [one.event for one in found if isinstance(one.event, BusMaintained)]


async def call(nc: Client, verb: str, target: str, **body: Any) -> dict[str, Any]:
    subject = f"{API}.{verb}.{target}" if target else f"{API}.{verb}"
    return dict(json.loads((await nc.request(subject, json.dumps(body).encode() if body else b"", timeout=5)).data))


async def test_each_change_is_seen(guarded: Guarded, audit: MaintenanceRecords, store: EventStore) -> None:
    """With who, from where, and what the servers did."""
    nc = guarded.connections["maintenance"]
    await guarded.connections["handlers"].publish(subjects.vault_key("k"), b"x")
    await guarded.connections["handlers"].flush()
    consumer = {"stream_name": "NEBULA_VAULT", "config": {"durable_name": "c", "ack_policy": "explicit"}}
    config = (await call(nc, "STREAM.INFO", "NEBULA_HEALTH"))["config"]
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("STREAM.MSG.DELETE", "NEBULA_VAULT", {"seq": 1}),
        ("STREAM.PURGE", "NEBULA_VAULT", {"filter": "nebula.vault.k"}),
        ("STREAM.UPDATE", "NEBULA_HEALTH", {**config, "description": "changed"}),
        ("CONSUMER.DURABLE.CREATE", "NEBULA_VAULT.c", consumer),
        ("CONSUMER.PAUSE", "NEBULA_VAULT.c", {"pause_until": "2040-01-01T00:00:00Z"}),
        ("CONSUMER.DELETE", "NEBULA_VAULT.c", {}),
        ("STREAM.CREATE", "MINE", {"name": "MINE", "subjects": ["mine"]}),
        ("STREAM.SNAPSHOT", "NEBULA_VAULT", {"deliver_subject": "_INBOX.maintenance.s"}),
        ("STREAM.DELETE", "NEBULA_HEALTH", {}),
        ("STREAM.DELETE", "NEBULA_REFUSALS", {}),
    ]
    for verb, target, body in changes:
        assert "error" not in await call(nc, verb, target, **body), verb
    found = await recorded(guarded, audit, store)
    assert [(one.call, one.target, one.refused) for one in found] == [(verb, to, None) for verb, to, _ in changes]
    assert found[1].request == '{"filter": "nebula.vault.k"}'
    public = credentials.read(guarded.authority.file("maintenance")).public
    assert {(one.credential, one.address, one.count) for one in found} == {(public, "127.0.0.1", 1)}


async def test_what_is_sent_without_a_reply_subject_is_seen(
    guarded: Guarded, audit: MaintenanceRecords, store: EventStore
) -> None:
    await guarded.connections["maintenance"].publish(f"{API}.STREAM.DELETE.NEBULA_EVENTS", b"")
    await guarded.settled()
    assert [(each.verb, each.target) for each in audit._waiting] == [("STREAM.DELETE", "NEBULA_EVENTS")]


async def test_what_the_servers_refuse_is_seen(guarded: Guarded, audit: MaintenanceRecords, store: EventStore) -> None:
    nc = guarded.connections["maintenance"]
    assert "error" in await call(nc, "STREAM.PURGE", "NEBULA_EVENTS")
    for _ in range(3):
        await call(nc, "STREAM.DELETE", "NOWHERE")
    found = await recorded(guarded, audit, store)
    assert [(one.call, one.target, one.count) for one in found] == [
        ("STREAM.PURGE", "NEBULA_EVENTS", 1),
        ("STREAM.DELETE", "NOWHERE", 3),
    ]
    assert found[1].refused == "stream not found" and found[0].refused


async def test_reading_and_calls_of_roles_are_not(
    guarded: Guarded, audit: MaintenanceRecords, store: EventStore
) -> None:
    maintained = guarded.connections["maintenance"]
    await maintained.jetstream().streams_info()
    await maintained.jetstream().stream_info("NEBULA_EVENTS")
    await call(maintained, "CONSUMER.NAMES", "NEBULA_WANTED")
    await call(maintained, "STREAM.MSG.GET", "NEBULA_EVENTS", seq=1)
    await call(maintained, "INFO", "")
    await guarded.connections["handlers"].jetstream().purge_stream("NEBULA_PARKED")
    assert await recorded(guarded, audit, store) == []


async def test_nobody_else_can_record_or_hear_it(guarded: Guarded, audit: MaintenanceRecords) -> None:
    """A role with stolen names and texts is not taken for maintenance, and no role hears of the calls."""
    claims = 'x","name_tag":"maintenance","user":"U'
    heard = []
    for name in ("gateway", "projections", "guest-data", "node-n1", "handlers"):
        nc = Client()
        settings = guarded.settings(name)

        async def quiet(_: Exception) -> None: ...

        await nc.connect(guarded.server.url, name=claims, user_credentials=str(settings.nats_creds), error_cb=quiet)

        async def hear(msg: Any) -> None:
            heard.append(msg)

        await nc.subscribe("$JS.EVENT.ADVISORY.>", cb=hear)
        await nc.publish(f"{API}.STREAM.DELETE.NEBULA_HEALTH", claims.encode())
        await nc.publish("$JS.nebula.API.STREAM.PURGE.NEBULA_PARKED", b"{}", headers={"Nats-Request-Info": claims})
        await nc.publish("nebula.bus.maintained", b"{}")
        await nc.flush()
        await guarded.settled()
        await nc.close()
    assert audit._waiting == {} and heard == []


async def test_it_waits_for_handlers_and_is_recorded_once(guarded: Guarded, store: EventStore) -> None:
    """The same record that is sent again, because its answer was lost, changes nothing."""
    made = MaintenanceRecords(guarded.connections["authority"])
    await made.listen()
    await guarded.settled()
    await guarded.connections["maintenance"].jetstream().delete_stream("NEBULA_HEALTH")
    assert await recorded(guarded, made, store) == []
    again = list(made._unrecorded)
    await recording.serve(guarded.connections["handlers"], store, Malformed())
    assert len(await recorded(guarded, made, store)) == 1
    made._unrecorded.extend(again)
    assert len(await recorded(guarded, made, store)) == 1
    assert made._unrecorded == []


def test_a_flood_of_refusals_hides_no_change() -> None:
    audit = MaintenanceRecords(Client())
    for number in range(5000):
        audit.note(Call("maintenance", f"X.{number}", "y", "U", "127.0.0.1", "", "bad"), str(number))
    audit.note(Call("maintenance", "STREAM.DELETE", "NEBULA_EVENTS", "U", "127.0.0.1", "", None), "last")
    assert len(audit._waiting) <= 2 * maintenance.MOST_REFUSED + 2
    assert sum(each.times for each in audit._waiting.values()) == 5001
    assert list(audit._waiting)[-1][1:3] == ("STREAM.DELETE", "NEBULA_EVENTS")


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("$JS.API.STREAM.DELETE.X", ("STREAM.DELETE", "X")),
        ("$JS.hub.API.STREAM.DELETE.X", ("STREAM.DELETE", "X")),
        ("$JS.API.CONSUMER.DURABLE.CREATE.X.y", ("CONSUMER.DURABLE.CREATE", "X.y")),
        ("$JS.API.CONSUMER.CREATE.X.y.a.b", ("CONSUMER.CREATE", "X.y.a.b")),
        ("$JS.API.STREAM.MSG.DELETE.INFO", ("STREAM.MSG.DELETE", "INFO")),
        ("$JS.API.INFO", ("INFO", "")),
        ("", ("", "")),
    ],
)
def test_subjects_are_read(subject: str, expected: tuple[str, str]) -> None:
    assert parsed(subject) == expected


@pytest.mark.parametrize("advisory", [None, [], {}, {"client": 3}, {"client": {}, "subject": 7, "response": "{"}])
def test_any_message_is_survived(advisory: object) -> None:
    found = maintenance.call_of(advisory)
    assert found is None or found.verb == ""
