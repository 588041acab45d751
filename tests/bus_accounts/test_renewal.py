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
from runtime.bus import bus, replies, requests
from runtime.bus.accounts import credentials
from runtime.bus.accounts.authority import Authority
from runtime.bus.replies import Result
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
        assert called > 100
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
        assert called > 100
        for role in roles:
            found = credentials.read(authority.file(role))
            assert found.public == keys[role] and (found.expires or 0) > time.time() + 3600
        assert not keeping.done()
    finally:
        await end([keeping])
        for nc in opened.values():
            with contextlib.suppress(Exception):
                await nc.close()
