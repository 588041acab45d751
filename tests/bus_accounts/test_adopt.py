"""A home of before accounts: its streams become those of CONTROL, whole."""

import shutil
from pathlib import Path

import pytest

from cli.local.accounts import settled
from runtime import subjects
from runtime.bus import bus, streams
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import Account
from runtime.local.child import ServerError
from runtime.local.servers import start_nats
from runtime.settings import Common


async def test_the_streams_of_before_are_kept(tmp_path: Path) -> None:
    server = await start_nats(tmp_path)
    nc = await bus.connect(Common(nats_url=server.url), "tests")
    await streams.ensure_all(nc.jetstream(), 1)
    for number in range(20):
        await nc.jetstream().publish(subjects.event("p", "vm", f"v{number}"), b"x")
    await nc.close()
    await server.stop()
    authority = Authority(tmp_path)
    authority.write()
    for _ in range(2):
        server = await start_nats(tmp_path, accounts=authority)
        nc = await bus.connect(Common(nats_url=server.url, nats_creds=authority.file("handlers")), "tests")
        await streams.ensure_all(nc.jetstream(), 1)
        assert (await nc.jetstream().stream_info(subjects.EVENTS)).state.messages == 20
        await nc.close()
        await server.stop()
    (tmp_path / "nats" / "jetstream" / "$G" / "streams" / "OTHER").mkdir(parents=True)
    with pytest.raises(ServerError, match=r"\$G and .* have streams"):
        await start_nats(tmp_path, accounts=authority)


async def test_new_keys_of_the_bus_keep_the_log(tmp_path: Path) -> None:
    """An operator removes `bus`, because somebody may know its keys."""
    accounts = set()
    for number in range(3):
        authority = Authority(tmp_path)
        accounts.add(authority.public[Account.CONTROL])
        server = await start_nats(tmp_path, accounts=authority)
        nc = await bus.connect(Common(nats_url=server.url, nats_creds=authority.file("handlers")), "tests")
        await streams.ensure_all(nc.jetstream(), 1)
        assert (await nc.jetstream().stream_info(subjects.EVENTS)).state.messages == number
        await nc.jetstream().publish(subjects.event("p", "vm", f"v{number}"), b"x")
        await nc.close()
        await server.stop()
        assert settled(tmp_path)
        shutil.rmtree(tmp_path / "bus")
        assert settled(tmp_path), "a server without accounts would show an empty log"
    assert len(accounts) == 3
