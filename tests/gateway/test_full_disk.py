"""A full disk under the event log: commands are refused in words, and go on by themselves once there is room."""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from nats.aio.client import Client

from cli.local.servers import kept
from domain.base import Sealed
from eventstore.integrity.audit import verify_log
from eventstore.integrity.checkpoints import signing_key
from eventstore.integrity.notary import Notary
from eventstore.vault.vault import Erased, Vault, VaultUnavailable
from runtime import subjects
from runtime.bus.quick_client import QuickClient
from runtime.local.child import free_port
from runtime.local.full_disk import FullDisk, write_error
from runtime.local.servers import NatsServer, Postgres, start_nats
from tests.conftest import fresh_database
from tests.gateway.platform import served
from tests.handlers.platform import WriteSide
from tests.small_disk import fill, mounted, needs_root
from tests.waiting import eventually

pytestmark = needs_root


@pytest.fixture
def small_disk(open_folder: Path) -> Iterator[Path]:
    """A home whose event log is on a disk of its own, of 64 MiB."""
    with mounted(open_folder / "nats", 64):
        yield open_folder


async def test_a_command_succeeds_once_there_is_room(small_disk: Path, postgres: Postgres) -> None:
    lines: list[str] = []
    ballast = small_disk / "nats" / "ballast"
    start = partial(start_nats, small_disk, port=free_port())
    async with kept("nats", start, FullDisk(lines.append).watch) as server:
        nc = QuickClient()
        await nc.connect(server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)  # type: ignore[arg-type]
        side = WriteSide(small_disk, server, nc, {})
        try:
            await side.start()
            async with (
                served(side, await fresh_database(postgres)) as (_, url),
                httpx.AsyncClient(base_url=url, timeout=90) as http,
            ):
                vault, text = Vault.of(nc, small_disk / "master.key"), "#cloud-config\n"
                sealed, doomed = await vault.seal("kept", text), await vault.seal("destroyed", text)
                refused = await refused_at_last(http, ballast)
                assert (refused.status_code, refused.json()["code"]) == (503, "log_unavailable")
                assert "disk" in refused.json()["detail"]
                await unwritable(nc, server)
                await eventually(lambda: len(lines) >= 2, "the keeper has seen it")
                assert "no space left on device" in lines[0]
                assert str(small_disk) in lines[1]
                body = refused.request.content
                assert server.child.running
                await nothing_is_sealed(vault, doomed)

                ballast.unlink()
                await eventually(lambda: len(lines) >= 3, "the server is started again", 25)
                key = {"Idempotency-Key": refused.request.headers["Idempotency-Key"]}
                json = {"Content-Type": "application/json"}

                async def accepted() -> bool:
                    answer = await http.post("/v1/projects", content=body, headers=key | json)
                    return answer.status_code == 202

                await eventually(accepted, f"the same command succeeds; {lines}", 25)
                assert len(lines) == 3, lines
                assert await Vault.of(nc, small_disk / "master.key").unseal(sealed) == text
                assert await vault.unseal(await vault.seal("new", text)) == text
                await vault.destroy("destroyed")
                with pytest.raises(Erased):
                    await vault.unseal(doomed)
                await whole(nc, small_disk)
        finally:
            await side.stop_all()
            await nc.close()


async def refused_at_last(http: httpx.AsyncClient, ballast: Path) -> httpx.Response:
    """The first answer that is no acceptance, on a disk that fills up."""
    number = 0
    while True:
        fill(ballast)
        number += 1
        name = f"project-{number}"
        answer = await http.post("/v1/projects", json={"id": name, "name": "x" * 60}, headers={"Idempotency-Key": name})
        if answer.status_code != 202:
            return answer


async def unwritable(nc: Client, server: NatsServer) -> None:
    """Go on until a stream is one that the server does not write to any more. Small messages may still find room."""
    while not await asyncio.to_thread(write_error, server.monitor):
        with contextlib.suppress(TimeoutError):
            await nc.request(subjects.event("default", "vm", "large"), bytes(10_000), timeout=0.5)


async def nothing_is_sealed(vault: Vault, doomed: Sealed) -> None:
    """A server that cannot write neither keeps new keys nor destroys one; what is there opens."""
    with contextlib.suppress(VaultUnavailable):  # the vault's stream may still have room in a block
        await vault.seal(str(uuid.uuid4()), "x" * 1000)
    with contextlib.suppress(VaultUnavailable):
        await vault.destroy(doomed.key)


async def whole(nc: Client, home: Path) -> None:
    """What is in the log is in order, and signed to its end; the server may have left positions without a message."""
    notary = Notary(nc, signing_key(home / "checkpoint.key"))
    await notary.step()
    report = await verify_log(nc, keys=None)
    assert {finding.code for finding in report.findings} <= {"shape", "missing"}, (
        report.findings
    )  # (what `unwritable` stored)
    assert report.checkpoints >= 1


async def test_a_server_that_stores_is_left_alone(tmp_path: Path) -> None:
    server = await start_nats(tmp_path)
    try:
        assert write_error(server.monitor) is None
        assert write_error(free_port()) is None
    finally:
        await server.stop()
