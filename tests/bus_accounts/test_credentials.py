"""Credentials: who has none can do nothing, they expire, they are renewed, and a revoked one ends live connections."""

import asyncio
import shutil
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError, NoServersError

from runtime.bus import bus, streams
from runtime.bus.accounts import credentials
from runtime.bus.accounts.authority import Authority, signer_of
from runtime.bus.accounts.claims import user
from runtime.bus.accounts.jwt import claims
from runtime.bus.accounts.keys import Owner, WrongKey, new
from runtime.bus.accounts.page import page
from runtime.bus.accounts.table import ROLES, Account
from runtime.local.servers import start_nats
from runtime.settings import Common
from runtime.tasks.patience import CannotRun
from tests.bus_accounts.conftest import Guarded

PAGE = Path(__file__).parents[2] / "docs" / "bus-access.md"


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text() == page(), "python -m runtime.bus.accounts.page > docs/bus-access.md"


async def test_without_a_credential_nobody_connects(guarded: Guarded) -> None:
    with pytest.raises(CannotRun, match="NEBULA_NATS_CREDS"):
        await bus.connect(Common(nats_url=guarded.server.url), "nobody")
    with pytest.raises(CannotRun, match="check NEBULA_NATS_USER"):
        await bus.connect(Common(nats_url=guarded.server.url, nats_user="a", nats_password="b"), "nobody")
    nobody = Client()
    with pytest.raises((NatsError, NoServersError)):
        await nobody.connect(guarded.server.url, allow_reconnect=False, max_reconnect_attempts=1, error_cb=ignore)


async def ignore(_: Exception) -> None:
    """The call raises it."""


async def test_a_credential_of_another_platform_is_refused(guarded: Guarded, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    other.write()
    with pytest.raises(CannotRun, match="of another platform"):
        await bus.connect(Common(nats_url=guarded.server.url, nats_creds=other.file("maintenance")), "stranger")


def test_only_the_owner_reads_keys_and_credentials(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.write()
    authority.configuration(Path("nats.conf"))
    for path in (tmp_path / "bus").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    seeds = [file.read_text().strip() for file in (tmp_path / "bus" / "keys").iterdir()]
    for file in (authority.file("gateway"), tmp_path / "bus" / "nats.conf"):
        assert not any(seed in file.read_text() for seed in seeds)


async def test_a_revoked_credential_ends_its_connection_and_gets_no_other(guarded: Guarded) -> None:
    victim, other = guarded.connections["node-n1"], guarded.connections["node-n2"]
    authority, file = guarded.authority, guarded.authority.file("node-n1")
    authority.revoke(credentials.read(file).public)
    await authority.push(guarded.connections["system"], Account.NODES)
    with pytest.raises(CannotRun, match="revoked"):
        await asyncio.wait_for(victim.until_ended(), 10)
    with pytest.raises(CannotRun, match="revoked"):
        await bus.connect(guarded.settings("node-n1"), "node-n1")
    await other.flush()
    assert other.is_connected
    # It stays revoked: a new authority on the same home says so too, and renewing makes another key.
    again = Authority(guarded.home)
    before = credentials.read(file).public
    assert before in again.revoked()[Account.NODES]
    assert again.renew("node", "n1")
    assert credentials.read(file).public != before
    await (await bus.connect(guarded.settings("node-n1"), "node-n1")).close()


async def test_an_expired_credential_ends_its_connection(guarded: Guarded) -> None:
    authority = guarded.authority
    key = new(Owner.USER)
    file = authority.file("node-n3")
    credentials.write(file, authority.node_credentials("n3", key.public, int(time.time()) + 2), key)
    nc = await bus.connect(guarded.settings("node-n3"), "node-n3")
    with pytest.raises(CannotRun, match="has expired"):
        await asyncio.wait_for(nc.until_ended(), 20)


async def test_a_renewed_credential_is_used_when_the_old_one_expires(guarded: Guarded) -> None:
    authority = guarded.authority
    key = new(Owner.USER)
    file = authority.file("node-n3")
    credentials.write(file, authority.node_credentials("n3", key.public, int(time.time()) + 2), key)
    nc = await bus.connect(guarded.settings("node-n3"), "node-n3")
    credentials.write(file, authority.node_credentials("n3", key.public, int(time.time()) + 600), key)
    async with asyncio.timeout(20):
        while not nc.stats["reconnects"] or not nc.is_connected:
            await asyncio.sleep(0.05)
    await nc.flush()
    await nc.close()


def test_the_signer_of_nodes_signs_for_public_keys_of_users_only(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.write()
    signer = signer_of(authority.signer_file)
    assert "node-n1" in claims(signer.credentials("n1", new(Owner.USER).public, 1)).values()
    assert "guest-data-n1" in claims(signer.guest_credentials("n1", new(Owner.USER).public, 1)).values()
    (tmp_path / "old").write_text("\n".join(authority.signer_file.read_text().split()[:2]))  # of an earlier version
    old = signer_of(tmp_path / "old")
    assert old.account == signer.account and old.guest_credentials("n1", new(Owner.USER).public, 1) == ""
    for wrong in ("", "U" * 56, new(Owner.ACCOUNT).public, new(Owner.USER).public[:-1] + "é"):
        with pytest.raises(WrongKey):
            signer.credentials("n1", wrong, 1)
    for name in ("a.b", "*", ">", "", "a b"):
        with pytest.raises(ValueError, match="token"):
            signer.credentials(name, new(Owner.USER).public, 1)


def test_credentials_are_renewed_before_they_expire_and_when_the_table_changes(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert authority.renew("gateway")
    assert not authority.renew("gateway")
    assert authority.renew("handlers", seconds=3600)
    assert authority.renew("handlers")
    assert authority.renew("authority")
    first = credentials.read(authority.file("authority"))
    key = credentials.parts(authority.file("authority"))[1]
    other = authority._user("maintenance", None, key, int(time.time()) + 10**6)  # of the same account
    credentials.write(authority.file("authority"), other, key)
    assert authority.renew("authority")
    second = credentials.read(authority.file("authority"))
    assert (first.public, first.name) == (second.public, second.name)


async def test_a_role_s_credential_in_the_account_of_an_earlier_version_is_revoked(tmp_path: Path) -> None:
    """Handlers were in the account of the streams: their credential of before must not open it any more."""
    authority = Authority(tmp_path)
    authority.write()
    file, stolen = authority.file("handlers"), authority.file("stolen")
    key = new(Owner.USER)
    old = replace(ROLES["handlers"], account=Account.CONTROL)
    account, signer = authority.public[Account.CONTROL], authority._signers[Account.CONTROL]
    credentials.write(file, user(old, key.public, account, signer, expires=int(time.time()) + 10**7), key)
    shutil.copy(file, stolen)
    server = await start_nats(tmp_path, accounts=authority)
    try:
        nc = await bus.connect(Common(nats_url=server.url, nats_creds=file), "tests")
        await streams.ensure_all(nc.jetstream(), 1)
        await nc.close()
        assert credentials.read(file).account == "handlers"
        with pytest.raises(CannotRun, match="is revoked"):
            await bus.connect(Common(nats_url=server.url, nats_creds=stolen), "tests")
    finally:
        await server.stop()


@pytest.mark.parametrize("content", ["", "x", "-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n"])
async def test_a_malformed_file_is_refused_with_a_text(tmp_path: Path, content: str) -> None:
    file = tmp_path / "x.creds"
    file.write_text(content)
    with pytest.raises(CannotRun, match=r"NEBULA_NATS_CREDS: .*x\.creds"):
        await bus.connect(Common(nats_creds=file), "x")
    with pytest.raises(CannotRun, match="cannot read NEBULA_NATS_CREDS"):
        await bus.connect(Common(nats_creds=tmp_path / "missing"), "x")


def test_each_role_has_an_account() -> None:
    assert {role.account for role in ROLES.values()} == set(Account)
