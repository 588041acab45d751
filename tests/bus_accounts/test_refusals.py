"""What the server of the bus refuses is recorded for auditors: who, from where, what, and how often."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from cli.local import bus_refusals
from cli.local.bus_refusals import BusRefusals, Entry, violation
from eventstore.log.jetstream import Stream
from gateway.access.refusals import Refusals
from runtime import subjects
from runtime.bus import bus
from runtime.bus.accounts import credentials
from runtime.bus.accounts.table import Account
from runtime.bus.malformed import Malformed
from runtime.bus.refused_calls import Refusal
from tests.bus_accounts.conftest import Guarded
from tests.waiting import eventually

KEY = "UDIRZWUCK7WGNNFKKRU75YT4NP376RE2HOUXYIEW442OYGFGHZ76TYK5"
ACCOUNT = "ACU5LK4N7MTU7KUWVMBCEFLR5IYNZNF5HI7BVYW5MMTMSZQF7MJUA7IO"


@pytest.fixture
async def audit(guarded: Guarded) -> AsyncIterator[BusRefusals]:
    """As in `nebula up`, on connections that were there first."""
    system, authority = guarded.connections["system"], guarded.connections["authority"]
    made = BusRefusals(authority, system, guarded.home / "log" / "nats.log")
    await made.listen()
    await system.flush()
    await made.look()
    yield made


async def recorded(guarded: Guarded, audit: BusRefusals) -> list[Refusal]:
    await guarded.settled()
    await audit.look()
    stream = Stream(guarded.connections["handlers"], subjects.REFUSALS, timeout=5)
    return [Refusal.model_validate_json(each.body) for each in await stream.read(0, subjects.REFUSALS_OF_ALL)]


async def attempts(nc: Client) -> None:
    """What somebody tries who has stolen the credential of n1."""
    await nc.publish("nebula.events.p.vm.x", b"x")
    await nc.publish("nebula.nodes.n2.reports.vm.x", b"x")
    await nc.subscribe("nebula.nodes.n2.wanted.vm.*")
    await nc.subscribe("nebula.nodes.n2.asks.*", "queue")
    await nc.subscribe("_INBOX.>")
    await nc.publish("$JS.API.STREAM.DELETE.NEBULA_EVENTS", b"")
    await nc.publish("nebula.nodes.n1.heartbeat", b"x", headers={"Nats-Trace-Dest": "nebula.nodes.n2.lease"})
    await nc.flush()


async def test_what_a_stolen_credential_tries_is_seen(guarded: Guarded, audit: BusRefusals) -> None:
    thief = await bus.connect(guarded.settings("node-n1"), "daemon", silent=True)
    await attempts(thief)
    await thief.publish("nebula.events.p.vm.x", b"again")
    found = await recorded(guarded, audit)
    await thief.close()
    public = credentials.read(guarded.authority.file("node-n1")).public
    assert {(one.status, one.code, one.address, one.credential, one.actor) for one in found} == {
        (403, "bus_permission", "127.0.0.1", public, "node:n1")
    }
    assert {(one.method, one.path): one.count for one in found} == {
        ("PUBLISH", "nebula.events.p.vm.x"): 2,
        ("PUBLISH", "nebula.nodes.n2.reports.vm.x"): 1,
        ("SUBSCRIBE", "nebula.nodes.n2.wanted.vm.*"): 1,
        ("SUBSCRIBE", "nebula.nodes.n2.asks.*"): 1,
        ("SUBSCRIBE", "_INBOX.>"): 1,
        ("PUBLISH", "$JS.API.STREAM.DELETE.NEBULA_EVENTS"): 1,
        ("PUBLISH", "nebula.nodes.n2.lease"): 1,
    }


async def test_every_role_is_seen(guarded: Guarded, audit: BusRefusals) -> None:
    limited = [name for name in guarded.connections if name not in ("maintenance", "system", "handlers")]
    for name in limited:
        connection = await bus.connect(guarded.settings(name), "x", silent=True)
        await connection.publish("nebula.events.p.vm.x", b"x")
        await connection.flush()
        await connection.close()
    found = await recorded(guarded, audit)
    expected = {f"node:{name[5:]}" if name.startswith("node-") else f"system:{name}" for name in limited}
    assert {one.actor for one in found} == expected


async def refused_connection(guarded: Guarded, **options: Any) -> None:
    async def quiet(_: Exception) -> None: ...

    nc = Client()
    with pytest.raises(NatsError):
        await nc.connect(guarded.server.url, allow_reconnect=False, error_cb=quiet, **options)


async def test_connections_without_a_valid_credential_are_seen(guarded: Guarded, audit: BusRefusals) -> None:
    await guarded.connections.pop("node-n2").close()
    await refused_connection(guarded)
    await refused_connection(guarded, user="admin", password="guess")
    revoked = credentials.read(guarded.authority.file("node-n2")).public
    guarded.authority.revoke(revoked)
    await guarded.authority.push(guarded.connections["system"], Account.NODES)
    await refused_connection(guarded, user_credentials=str(guarded.authority.file("node-n2")))
    found = await recorded(guarded, audit)
    assert {(one.status, one.code, one.address, one.actor, one.method) for one in found} == {
        (401, "bus_credential", "127.0.0.1", None, "CONNECT")
    }
    assert {one.credential: one.count for one in found} == {None: 2, revoked: 1}


async def test_gateways_show_and_count_it(guarded: Guarded, audit: BusRefusals) -> None:
    gateway = Refusals(guarded.connections["gateway"], 10, (), Malformed())
    following = asyncio.create_task(gateway.run())
    await guarded.connections["node-n1"].publish("nebula.vault.x", b"x")
    await recorded(guarded, audit)

    async def shown() -> bool:
        return len(gateway.newest(None, {}, 10)) == 1

    try:
        await eventually(shown, "the gateway has read it")
    finally:
        following.cancel()
    assert gateway.of_bus == {"bus_permission": 1}


async def test_a_flood_leaves_room_for_others(guarded: Guarded, audit: BusRefusals) -> None:
    for number in range(3000):
        await guarded.connections["node-n1"].publish(f"nebula.vault.{number}", b"x")
    await guarded.connections["node-n2"].publish("nebula.vault.other", b"x")
    found = await recorded(guarded, audit)
    keys = {name: credentials.read(guarded.authority.file(name)).public for name in ("node-n1", "node-n2")}
    flood = [one for one in found if one.credential == keys["node-n1"]]
    assert len(flood) == bus_refusals.MOST_OF_ONE + 1
    assert sum(one.count for one in flood) == 3000
    assert [one.path for one in found if one.credential == keys["node-n2"]] == ["nebula.vault.other"]


async def test_what_cannot_be_recorded_yet_is_kept(guarded: Guarded, audit: BusRefusals) -> None:
    maintenance = guarded.connections["maintenance"].jetstream()
    await maintenance.delete_stream(subjects.REFUSALS)
    await guarded.connections["node-n1"].publish("nebula.vault.x", b"x")
    await guarded.settled()
    await audit.look()
    await maintenance.add_stream(name=subjects.REFUSALS, subjects=[subjects.REFUSALS_OF_ALL], allow_direct=True)
    assert [one.path for one in await recorded(guarded, audit)] == ["nebula.vault.x"]


def line(client: str = '"v1:go:x"', subject: str = '"nebula.x"', what: str = "Publish Violation - Subject") -> str:
    return (
        f'[1] 2030/01/01 00:00:00.0 [ERR] [::1]:4 - cid:4 - {client} - "{ACCOUNT}/NODES/jwt:{KEY}" - {what} {subject}'
    )


def test_a_line_is_read() -> None:
    assert violation(line()) == Entry(403, "bus_permission", "::1", KEY, "PUBLISH", "nebula.x")
    subscribed = violation(line(what="Subscription Violation - Subject", subject='"a.>", SID 4'))
    assert subscribed is not None and (subscribed.method, subscribed.path) == ("SUBSCRIBE", "a.>")
    assert violation("[1] 2030/01/01 00:00:00.0 [INF] Server is ready") is None


async def test_a_client_cannot_put_a_line_about_another_one_into_the_log(guarded: Guarded, audit: BusRefusals) -> None:
    """A client chooses its name and the subjects, with quotes and line feeds."""
    victim = "U" + "A" * 55
    forged = f'x" - "{ACCOUNT}/NODES/jwt:{victim}" - Publish Violation - Subject "nebula.events.forged"'
    settings = guarded.settings("node-n1")
    for name in (forged, f"x\n[1] 2030/01/01 00:00:00.0 [ERR] 9.9.9.9:1 - cid:9 - {forged}"):
        nc = Client()
        await nc.connect(guarded.server.url, name=name, user_credentials=str(settings.nats_creds))
        await nc.publish('nebula.vault."x', b"x")
        await nc.publish(forged.replace(" ", ""), b"x")
        await nc.flush()
        await nc.close()
    found = await recorded(guarded, audit)
    assert {(one.actor, one.address) for one in found} == {("node:n1", "127.0.0.1")}
    assert all(one.credential != victim for one in found)


async def test_a_log_that_was_rotated_is_read_from_its_beginning(guarded: Guarded, tmp_path: Path) -> None:
    file = tmp_path / "nats.log"
    old = line(subject='"nebula.old"')
    file.write_text(f"{old}\n[1] [INF] Starting nats-server\n{line()}\nhalf a line")
    audit = BusRefusals(guarded.connections["authority"], guarded.connections["system"], file)
    assert [one.path for one in await recorded(guarded, audit)] == ["nebula.x"]
    file.write_text(line(subject='"nebula.new"') + "\n")
    assert [one.path for one in await recorded(guarded, audit)] == ["nebula.x", "nebula.new"]
