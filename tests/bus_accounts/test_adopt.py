"""A home of before accounts: its streams become those of CONTROL, whole."""

from pathlib import Path

import pytest

from runtime import subjects
from runtime.bus import bus, streams
from runtime.bus.accounts.authority import Authority
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
    with pytest.raises(ServerError, match="both have streams"):
        await start_nats(tmp_path, accounts=authority)
