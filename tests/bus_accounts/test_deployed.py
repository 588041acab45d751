"""A bus whose server and roles are started one by one: `nebula bus init`, nats-server, `nebula bus serve`."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from cli.local.bus_authority import GIVEN, Deployed
from gateway.commands.commands import PATIENCE
from runtime import subjects
from runtime.bus import bus, replies, requests, streams
from runtime.bus.accounts import credentials, revoking
from runtime.bus.accounts.authority import Authority, signer_of
from runtime.bus.accounts.keys import Owner, new
from runtime.bus.accounts.table import REVOKE, Account
from runtime.bus.replies import Result
from runtime.bus.responder import Answer, Responder
from runtime.local.child import Child, find_program, free_port, spawn
from runtime.local.servers import start_nats
from runtime.settings import Common
from runtime.tasks.patience import CannotRun
from runtime.tasks.tasks import end
from tests.waiting import eventually


@dataclass
class Site:
    """Folders as the volumes of compose.yaml: the authority's home, and what is given to roles and to the server."""

    home: Path
    files: Path
    store: Path
    port: int

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("NEBULA_")}
        return own | {
            "NEBULA_HOME": str(self.home),
            "NEBULA_BUS_FILES": str(self.files),
            "NEBULA_BUS_RESOLVER": str(self.store / "accounts"),
            "NEBULA_NATS_URL": self.url,
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "cli.main", *words]

    def init(self) -> None:
        subprocess.run(self.command("bus", "init"), env=self.env, check=True, timeout=120, stdout=subprocess.DEVNULL)

    def settings(self, role: str) -> Common:
        return Common(home=self.home, nats_url=self.url, nats_creds=self.files / role / "bus.creds")

    async def server(self) -> Child:
        env = {"NEBULA_NATS_PORT": str(self.port), "NEBULA_NATS_STORE": f'"{self.store}"'}
        conf = ["--config", str(self.files / "server" / "nats.conf")]
        return await spawn("nats-server", [str(find_program("nats-server")), *conf], self.home / "nats.log", env=env)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    found = Site(tmp_path / "keys", tmp_path / "files", tmp_path / "data", free_port())
    found.init()
    server = await found.server()
    try:
        yield found
    finally:
        await server.stop()


def test_each_role_gets_its_own_files_and_no_other(tmp_path: Path) -> None:
    handlers = tmp_path / "files" / "handlers"
    handlers.mkdir(parents=True)
    handlers.chmod(0o2750)  # a folder for the group of another user, as systemd-tmpfiles makes it
    accounts = Deployed(Authority(tmp_path / "keys"), None, files=tmp_path / "files", resolver=Path("/data"))
    for _ in range(2):
        accounts.renew()
        found = {
            str(path.relative_to(tmp_path / "files")) for path in (tmp_path / "files").rglob("*") if path.is_file()
        }
        assert found == {f"{role}/bus.creds" for role in GIVEN} | {"handlers/node-signer", "server/nats.conf"}
    for role in GIVEN:
        file = tmp_path / "files" / role / "bus.creds"
        assert credentials.read(file).name == role
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        assert not stat.S_IMODE(file.parent.stat().st_mode) & 0o007
    assert stat.S_IMODE(handlers.stat().st_mode) == 0o2750
    conf = tmp_path / "files" / "server" / "nats.conf"
    assert stat.S_IMODE(conf.stat().st_mode) == 0o644, "the server may be another user"
    seeds = [file.read_text().strip() for file in (tmp_path / "keys" / "bus" / "keys").iterdir()]
    assert seeds
    assert not any(seed in conf.read_text() for seed in seeds)
    # What expires soon is renewed, and the role's file has the new one.
    accounts.authority.file("gateway").unlink()
    accounts.authority.renew("gateway", seconds=60)
    soon = credentials.read(accounts.authority.file("gateway")).expires
    accounts.renew()
    after = credentials.read(tmp_path / "files" / "gateway" / "bus.creds").expires
    assert soon is not None
    assert after is not None
    assert after > soon + 3600


async def test_every_role_connects_and_nobody_else(site: Site) -> None:
    for role in GIVEN:
        nc = await bus.connect(site.settings(role), role)
        await nc.flush()
        await nc.close()
    with pytest.raises(CannotRun):
        await bus.connect(Common(nats_url=site.url), "nobody")


async def test_the_streams_of_a_server_without_accounts_are_kept(tmp_path: Path) -> None:
    before = await start_nats(tmp_path)
    nc = await bus.connect(Common(nats_url=before.url), "tests")
    await streams.ensure_all(nc.jetstream(), 1)
    await nc.jetstream().publish(subjects.event("p", "vm", "v"), b"x")
    await nc.close()
    await before.stop()
    site = Site(tmp_path / "keys", tmp_path / "files", tmp_path / "nats", free_port())
    site.init()
    words = site.command("bus", "adopt", str(site.store))
    for answer in (b"adopted", b"nothing to adopt"):
        program = await asyncio.create_subprocess_exec(*words, env=site.env, stdout=subprocess.PIPE)
        assert (await program.communicate())[0].strip() == answer
    server = await site.server()
    try:
        nc = await bus.connect(site.settings("handlers"), "handlers")
        assert (await nc.jetstream().stream_info(subjects.EVENTS)).state.messages == 1
        await nc.close()
    finally:
        await server.stop()


async def test_a_revoked_node_is_disconnected_and_stays_out(site: Site) -> None:
    serving = await asyncio.create_subprocess_exec(*site.command("bus", "serve"), env=site.env)
    handlers = await bus.connect(site.settings("handlers"), "handlers")
    try:
        await streams.ensure_all(handlers.jetstream(), 1)
        key = new(Owner.USER)
        file = site.home / "n1.creds"
        jwt = signer_of(site.files / "handlers" / "node-signer").credentials("n1", key.public, 2**33)
        credentials.write(file, jwt, key)
        of_node = Common(home=site.home, nats_url=site.url, nats_creds=file)
        node = await bus.connect(of_node, "node")

        async def revoked() -> bool:
            try:
                await revoking.ask(handlers, key.public)
            except (requests.Unanswered, requests.Refused, NatsError):
                return False
            return True

        await eventually(revoked, f"the authority answers on {REVOKE}")
        with pytest.raises(CannotRun, match="revoked"):
            await asyncio.wait_for(node.until_ended(), 10)
        with pytest.raises(CannotRun, match="revoked"):
            await bus.connect(of_node, "node")
    finally:
        await handlers.close()
        serving.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(serving.wait(), 30) == 0
    assert key.public in Authority(site.home).revoked()[Account.NODES]


async def test_the_server_keeps_what_is_newer_than_its_configuration(tmp_path: Path) -> None:
    """A revocation that the server was told stays valid when it starts with a configuration from before."""
    site = Site(tmp_path / "keys", tmp_path / "files", tmp_path / "data", free_port())
    site.init()
    authority = Authority(site.home)
    key, file = new(Owner.USER), tmp_path / "n1.creds"
    credentials.write(file, authority.node_credentials("n1", key.public, 2**33), key)
    of_node = Common(home=site.home, nats_url=site.url, nats_creds=file)
    await asyncio.sleep(1.1)  # JWTs have whole seconds
    server = await site.server()
    try:
        system = await bus.connect(of_node.model_copy(update={"nats_creds": authority.file("system")}), "system")
        await (await bus.connect(of_node, "node")).close()
        authority.revoke(key.public)
        await authority.push(system, Account.NODES)
        await system.close()
    finally:
        await server.stop()
    server = await site.server()
    try:
        with pytest.raises(CannotRun, match="revoked"):
            await bus.connect(of_node, "node")
    finally:
        await server.stop()


async def test_a_caller_sees_no_error_while_a_credential_is_renewed(site: Site) -> None:
    """A credential of three seconds, whose file is renewed meanwhile. The connection and its subscriptions go on."""
    authority, settings = Authority(site.home), site.settings("gateway")
    assert settings.nats_creds is not None
    key = credentials.parts(settings.nats_creds)[1]
    handlers = await bus.connect(site.settings("handlers"), "handlers")
    answers = Responder(handlers)

    async def work(msg: Msg) -> Answer:
        return Answer(replies.accepted({"position": int(msg.data)}))

    async def answer(msg: Msg) -> None:
        await answers.carry_out(msg, work)

    await handlers.subscribe(subjects.COMMANDS, cb=answer)
    await handlers.flush()
    credentials.write(settings.nats_creds, authority._user("gateway", None, key, int(time.time()) + 3), key)
    gateway = await bus.connect(settings, "gateway")
    ended = asyncio.create_task(gateway.until_ended())
    Deployed(authority, None, files=site.files, resolver=site.store / "accounts").renew()
    try:
        number, after = 0, 0
        async with asyncio.timeout(60):
            while after < 50:
                result = await requests.request(
                    gateway, subjects.command("p", "vm", "stop"), str(number).encode(), PATIENCE, position
                )
                assert result == number
                number, after = number + 1, after + (gateway.stats["reconnects"] > 0)
        assert gateway.stats["reconnects"] == 1
        assert not ended.done()
    finally:
        await end([ended])
        await gateway.close()
        await handlers.close()


def position(result: Result) -> int:
    found = result["position"]
    assert isinstance(found, int)
    return found
