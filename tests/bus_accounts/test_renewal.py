"""Credentials that end while their connections work: they are renewed, and callers notice nothing."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from cli.local import accounts
from cli.local.accounts import Accounts
from gateway.commands.commands import PATIENCE
from node_daemon.membership.renewal import keep_valid
from runtime import subjects
from runtime.bus import bus, renewed, replies, requests
from runtime.bus.accounts import credentials
from runtime.bus.accounts.authority import Authority
from runtime.bus.quick_client import QuickClient
from runtime.bus.replies import Result
from runtime.bus.requests import Patience
from runtime.tasks.tasks import end
from tests.bus_accounts.conftest import Guarded, handlers_process
from tests.bus_accounts.test_joining import joined, settings

#: Seconds for which credentials of roles and nodes are valid here. That of a node outlasts one answer that was lost.
SHORT, OF_NODE = 4, 12


async def accept(msg: Msg) -> None:
    await msg.respond(replies.accepted({}))


def answer(result: Result) -> Result:
    return result


def shorten(authority: Authority, role: str) -> None:
    """A short credential, in place of the one that the role has."""
    authority.file(role).unlink()
    authority.renew(role, seconds=SHORT)


def renew_now(authority: Authority, role: str, node: str | None = None) -> None:
    """As the authority and a node do: another credential for the same key."""
    file = authority.file(role if node is None else f"{role}-{node}")
    key = credentials.parts(file)[1]
    credentials.write(file, authority._user(role, node, key, int(time.time()) + SHORT), key)


class Ends:
    """What servers say when they end a connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard: list[str] = []
        told = QuickClient._process_err

        async def process(nc: QuickClient, error: str) -> None:
            self.heard.append(error)
            await told(nc, error)

        monkeypatch.setattr(QuickClient, "_process_err", process)


async def keep_renewing(authority: Authority, *whose: tuple[str, str | None]) -> None:
    while True:
        for role, node in whose:
            await asyncio.to_thread(renew_now, authority, role, node)
        await asyncio.sleep(SHORT / 3)


@contextlib.asynccontextmanager
async def always_short(guarded: Guarded, *whose: tuple[str, str | None]) -> AsyncIterator[list[bus.Connection]]:
    """Connections whose credentials are always short, and renewed in time."""
    for spy in guarded.spies.values():  # with them, a request finds somebody who never answers
        await spy.nc.close()
    for role, node in whose:
        renew_now(guarded.authority, role, node)
    names = [role if node is None else f"{role}-{node}" for role, node in whose]
    opened = [await bus.connect(guarded.settings(name), name) for name in names]
    keeping = asyncio.create_task(keep_renewing(guarded.authority, *whose))
    try:
        yield opened
        assert not keeping.done()
    finally:
        await end([keeping])
        for nc in opened:
            with contextlib.suppress(Exception):
                await nc.close()


async def single_tries(caller: bus.Connection, subject: str, *watched: bus.Connection, times: int) -> int:
    """Callers at the same time, who send each request once, until each connection has been made again so many times."""
    called = 0

    async def call() -> None:
        nonlocal called
        while any(nc.stats["reconnects"] < times for nc in watched):
            await requests.request(caller, subject, b"{}", Patience(one_try=3.0), answer)
            called += 1

    async with asyncio.timeout(90):
        await asyncio.gather(*(call() for _ in range(4)))
    return called


async def test_no_request_is_lost_when_roles_change_their_credential(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on the side that asks, nor on the one that answers; some answers take their time."""
    ends = Ends(monkeypatch)
    async with always_short(guarded, ("gateway", None), ("handlers", None)) as (gateway, handlers):
        answering = set()

        async def later(msg: Msg) -> None:
            async def respond() -> None:
                await asyncio.sleep(0.05)
                await handlers.publish(msg.reply, replies.accepted({}))

            answering.add(asyncio.create_task(respond()))

        subject = subjects.command("default", "vm", "create")
        await handlers.subscribe(subject, queue="tests", cb=later)
        await handlers.flush()
        called = await single_tries(gateway, subject, gateway, handlers, times=3)
        assert called > 10
    assert ends.heard == [], "no server has ended a connection"


async def test_a_node_answers_all_it_was_asked_when_it_changes_its_credential(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its credential may answer only on the connection that has heard the question."""
    ends = Ends(monkeypatch)
    async with always_short(guarded, ("node", "n1")) as (node,):
        answering = set()

        async def later(msg: Msg) -> None:
            async def respond() -> None:
                await asyncio.sleep(0.05)
                await node.publish(msg.reply, replies.accepted({}))

            answering.add(asyncio.create_task(respond()))

        subject = subjects.ask("n1", "anything")
        await node.subscribe(subject, cb=later)
        await node.flush()
        gateway = guarded.connections["gateway"]
        called = 0
        async with asyncio.timeout(90):
            while node.stats["reconnects"] < 3:
                await requests.request(gateway, subject, b"{}", Patience(one_try=3.0), answer)
                called += 1
                await asyncio.sleep(0.02)
        assert called > 10
    assert ends.heard == []


async def test_a_connection_without_a_quiet_moment_works_on(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """New requests wait for a moment only, and the server ends it as before."""
    monkeypatch.setattr(renewed, "HELD", 0.05)
    async with always_short(guarded, ("gateway", None)) as (gateway,):
        handlers = guarded.connections["handlers"]
        subject = subjects.command("default", "vm", "create")
        asked: list[Msg] = []

        async def hear(msg: Msg) -> None:
            asked.append(msg)
            if msg.data != b"never":
                await msg.respond(replies.accepted({}))

        await handlers.subscribe(subject, queue="tests", cb=hear)
        await handlers.flush()
        silent = asyncio.create_task(gateway.request(subject, b"never", timeout=60))
        await calls_until_reconnected(gateway, subject, gateway, times=1)
        assert len(asked) > 10
        await end([silent])


async def calls_until_reconnected(caller: bus.Connection, subject: str, *watched: bus.Connection, times: int) -> int:
    """Call again and again until the server has ended each connection so many times and has taken it back.

    Returns the number of calls; raises if one is refused or not answered.
    """
    called = 0
    async with asyncio.timeout(90):
        while any(nc.stats["reconnects"] < times or not nc.is_connected for nc in watched):
            await requests.request(caller, subject, b"{}", PATIENCE, answer)
            called += 1
            await asyncio.sleep(0.01)
    await requests.request(caller, subject, b"{}", PATIENCE, answer)
    return called


@pytest.fixture
async def handlers(guarded: Guarded) -> AsyncIterator[Guarded]:
    """Handlers as a process, whose credentials for nodes are short."""
    async with handlers_process(guarded, NEBULA_NODE_CREDENTIAL_HOURS=str(OF_NODE / 3600)):
        yield guarded


async def test_a_node_renews_its_own_and_answers_all_the_time(handlers: Guarded, tmp_path: Path) -> None:
    files = await joined(handlers, tmp_path, "n7")
    node = await bus.connect(settings(tmp_path), "node-n7")
    renewing = asyncio.create_task(keep_valid(node, files))
    try:
        asked = f"{subjects.PREFIX}.nodes.n7.asks.anything"
        await node.subscribe(asked, cb=accept)
        await node.flush()
        called = await calls_until_reconnected(handlers.connections["gateway"], asked, node, times=1)
        assert called > 10
        held = files.held()
        assert held is not None and not renewing.done()
        assert credentials.read(files.creds).public == held.public_key, "the key stays"
    finally:
        await end([renewing])
        await node.close()


async def test_the_supervisor_renews_roles_and_no_call_is_refused(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides of a call have short credentials, which are renewed while they work."""
    monkeypatch.setattr(accounts, "LOOK_SECONDS", 0.5)
    authority: Authority = guarded.authority
    roles = ("gateway", "handlers")
    for role in roles:
        shorten(authority, role)
    keys = {role: credentials.read(authority.file(role)).public for role in roles}
    opened = {role: await bus.connect(guarded.settings(role), role) for role in roles}
    keeping = asyncio.create_task(Accounts(authority).keep())
    try:
        subject = subjects.command("default", "vm", "create")
        await opened["handlers"].subscribe(subject, queue="tests", cb=accept)
        await opened["handlers"].flush()
        called = await calls_until_reconnected(opened["gateway"], subject, *opened.values(), times=1)
        assert called > 10
        for role in roles:
            found = credentials.read(authority.file(role))
            assert found.public == keys[role] and (found.expires or 0) > time.time() + 3600
        assert not keeping.done()
    finally:
        await end([keeping])
        for nc in opened.values():
            with contextlib.suppress(Exception):
                await nc.close()
