"""A server with all accounts, streams, and a connection of each credential."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from handlers.nodes.consumers import provide
from runtime import subjects
from runtime.bus import bus, streams
from runtime.bus.accounts import credentials
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.jwt import Claims, signed
from runtime.bus.accounts.keys import Owner, new
from runtime.bus.accounts.table import ROLES, Account
from runtime.local.servers import NatsServer, start_nats
from runtime.settings import Common
from tests.event_keys import put_keys
from tests.waiting import eventually

NODE_NAMES = ("n1", "n2")


@dataclass
class Spy:
    """Hears everything in one account."""

    nc: Client
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    async def note(self, msg: Msg) -> None:
        self.heard.append((msg.subject, msg.data))


@dataclass
class Guarded:
    """`connections`: by the name of a role, `node-n1` for a node."""

    home: Path
    server: NatsServer
    authority: Authority
    connections: dict[str, bus.Connection]
    spies: dict[Account, Spy]

    def settings(self, credential: str) -> Common:
        return Common(home=self.home, nats_url=self.server.url, nats_creds=self.authority.file(credential))

    async def settled(self) -> None:
        """Wait until what was sent before has arrived everywhere."""
        for _ in range(3):
            for nc in [*self.connections.values(), *(spy.nc for spy in self.spies.values())]:
                await nc.flush()
            await asyncio.sleep(0.02)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    home = tmp_path / "home"
    home.mkdir()
    authority = Authority(home)
    authority.write()
    authority.renew("simulation")
    for node in NODE_NAMES:
        authority.renew("node", node)
    server = await start_nats(home, accounts=authority)
    found = Guarded(home, server, authority, {}, {})
    try:
        names = [name for name in ROLES if name != "node"] + [f"node-{node}" for node in NODE_NAMES]
        for name in names:
            found.connections[name] = await bus.connect(found.settings(name), name)
        handlers = found.connections["handlers"]
        await streams.ensure_all(handlers.jetstream(), 1)
        for node in NODE_NAMES:
            await provide(handlers, node)
        for account in Account:
            if account is not Account.SYS:
                found.spies[account] = await spy(found, account)
        yield found
    finally:
        for nc in [*found.connections.values(), *(each.nc for each in found.spies.values())]:
            await nc.close()
        await server.stop()


@asynccontextmanager
async def handlers_process(guarded: Guarded, **settings: str) -> AsyncIterator[None]:
    """Handlers as a process, once they answer: a request of before would wait for its time-out."""
    environment = {
        **os.environ,
        "NEBULA_HOME": str(guarded.home),
        "NEBULA_NATS_URL": guarded.server.url,
        "NEBULA_NATS_CREDS": str(guarded.authority.file("handlers")),
        **settings,
    }
    put_keys(guarded.home, since=0)
    command = [sys.executable, "-m", "cli.local.role", "handlers"]
    process = await asyncio.create_subprocess_exec(*command, env=environment)

    async def answers() -> bool:
        try:
            body = b'{"args": {}, "context": {}}'
            await guarded.connections["gateway"].request(subjects.command("system", "none", "none"), body, timeout=0.2)
        except (NoRespondersError, TimeoutError):
            return False
        return True

    try:
        await eventually(answers, "handlers answer")
        yield
    finally:
        process.terminate()
        await process.wait()


async def spy(guarded: Guarded, account: Account) -> Spy:
    key, authority = new(Owner.USER), guarded.authority
    every: Claims = {"allow": [">"]}
    nats: Claims = {"type": "user", "version": 2, "issuer_account": authority.public[account]}
    nats |= {"pub": every, "sub": every, "subs": -1, "data": -1, "payload": -1}
    file = authority.file(f"spy-{account}")
    credentials.write(file, signed(f"spy-{account}", key.public, nats, authority._signers[account]), key)
    nc = await bus.connect(guarded.settings(f"spy-{account}"), "spy")
    found = Spy(nc)
    await nc.subscribe("nebula.>", cb=found.note)
    await nc.flush()
    return found
