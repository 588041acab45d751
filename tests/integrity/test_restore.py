"""Restoring: the same log on another server, or nothing."""

import asyncio
from pathlib import Path

import pytest

from domain.project import ProjectRenamed
from eventstore.integrity import transfer
from eventstore.integrity.archive import verify_file
from eventstore.integrity.audit import verify_log
from eventstore.log.envelope import Ref
from eventstore.log.follow import follow
from eventstore.log.jetstream import Stream
from eventstore.log.store import Change
from runtime import subjects
from tests.integrity.logs import CONTEXT, START, Document, Log, no_state, raw, rewrite, running


async def signed_log(log: Log, path: Path) -> None:
    await log.grow(40)
    await log.notary().step()
    await log.grow(25, first=40)
    await log.notary().step()
    await log.export(path)


async def test_restored_log_is_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    async with running() as log, running() as empty:
        await signed_log(log, first)
        report = await transfer.restore(empty.nc, first, keys=log.keys)
        await empty.export(second)
        assert second.read_bytes() == first.read_bytes()
        assert await raw(empty.nc) == await raw(log.nc)
        assert await raw(empty.nc, subjects.CHECKPOINTS) == await raw(log.nc, subjects.CHECKPOINTS)
        assert await empty.all() == await log.all()
        assert report.last == await empty.store.last_position()
        assert (await verify_log(empty.nc, keys=log.keys)).ok
        feed = follow(empty.nc, 0, event_keys=None)
        assert next(iter(await anext(feed))) == (await log.all())[0]
        await feed.aclose()


async def test_a_restored_log_goes_on(tmp_path: Path) -> None:
    """Appends, the notary and the next export take it for what it is."""
    path = tmp_path / "log"
    async with running() as log, running() as empty:
        await signed_log(log, path)
        await transfer.restore(empty.nc, path, keys=log.keys)
        (empty.home / "checkpoint.key").write_bytes((log.home / "checkpoint.key").read_bytes())
        loaded = await empty.store.load(Ref("p1", "project", "p1"), no_state)
        event = ProjectRenamed(at=START, operation="o", fingerprint="f", name="after")
        await empty.store.append([Change(loaded.tip, [event])], CONTEXT)
        assert await empty.notary().step() is not None
        await empty.export(path)
        assert verify_file(path, keys=log.keys).ok
        assert (await verify_log(empty.nc, keys=log.keys)).ok


async def test_refuses_a_log_that_is_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with running() as log, running() as other:
        await signed_log(log, path)
        await other.grow(1, first=1)
        for resume in (False, True):
            with pytest.raises(transfer.Refused):
                await transfer.restore(other.nc, path, keys=log.keys, resume=resume)
        assert await other.store.last_position() == 1


async def test_refuses_what_does_not_verify(tmp_path: Path) -> None:
    path, bad, part = tmp_path / "log", tmp_path / "bad", tmp_path / "part"
    async with running() as log, running() as empty:
        await signed_log(log, path)
        rewrite(path, bad, lambda documents: [d for d in documents if d.get("position") != 8])
        with pytest.raises(transfer.Unsound) as refusal:
            await transfer.restore(empty.nc, bad, keys=log.keys)
        assert 8 in {finding.position for finding in refusal.value.report.findings}
        await log.export(part, after=10)
        with pytest.raises(transfer.Refused):
            await transfer.restore(empty.nc, part, keys=log.keys)
        assert await empty.store.last_position() == 0


@pytest.mark.parametrize(
    "smuggled",
    [
        {"headers": {"Nats-Rollup": "all"}},
        {"headers": {"Nebula-Stored-At": "2001-01-01T00:00:00+00:00"}},
        {"headers": {"content-type": "x\r\nNats-Rollup: all"}},
        {"headers": {"content-type": 7}},
        {"subject": "nebula.events.a.tag.b 0\r\nPUB x"},
        {"subject": "nebula.nodes.n.wanted.v"},
    ],
)
async def test_nothing_is_smuggled_to_the_server(tmp_path: Path, smuggled: Document) -> None:
    path, bad = tmp_path / "log", tmp_path / "bad"

    def change(documents: list[Document]) -> list[Document]:
        event = documents[5]
        headers = event["headers"] | smuggled.get("headers", {})
        return [*documents[:5], {**event, **smuggled, "headers": headers}, *documents[6:]]

    async with running() as log:
        await log.grow(10)
        await log.export(path)
        rewrite(path, bad, change)
        with pytest.raises(transfer.Unsound):
            await transfer.restore(log.nc, bad, keys=None)


async def test_cut_off_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far it came, the second try ends with the same log."""
    path, again = tmp_path / "log", tmp_path / "again"
    async with running() as log:
        await signed_log(log, path)
        total = await log.store.last_position()
        for survive in (0, 1, 39, total - 1, total):
            async with running() as empty:
                sent = 0
                send = transfer._Restore._send

                async def fail(self, recorded, survive=survive, send=send):  # type: ignore[no-untyped-def]
                    nonlocal sent
                    if sent == survive:
                        raise ConnectionError("pulled the plug")
                    sent += 1
                    await send(self, recorded)

                with monkeypatch.context() as patch:
                    patch.setattr(transfer._Restore, "_send", fail)
                    if survive < total:
                        with pytest.raises(ConnectionError):
                            await transfer.restore(empty.nc, path, keys=log.keys)
                        while await empty.store.last_position() < survive:
                            await asyncio.sleep(0.01)
                await transfer.restore(empty.nc, path, keys=log.keys, resume=True)
                await empty.export(again)
                assert again.read_bytes() == path.read_bytes()


async def test_somebody_else_appends_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    async with running() as log, running() as empty:
        await signed_log(log, path)
        send = transfer._Restore._send

        async def intrude(self, recorded):  # type: ignore[no-untyped-def]
            if recorded.position == 20:
                await empty.grow(1, first=1000, names=2000)
            await send(self, recorded)

        monkeypatch.setattr(transfer._Restore, "_send", intrude)
        with pytest.raises(transfer.Refused):
            await transfer.restore(empty.nc, path, keys=log.keys)


async def test_an_empty_log(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    async with running() as log, running() as empty:
        await log.export(first)
        assert verify_file(first, keys=log.keys).ok
        await transfer.restore(empty.nc, first, keys=log.keys)
        await empty.export(second)
        assert first.read_bytes() == second.read_bytes()
        assert await log.notary().step() is None


async def test_a_refused_append_leaves_no_gap(tmp_path: Path) -> None:
    """Single and batch: positions stay contiguous, which verifying relies on."""
    async with running() as log:
        await log.grow(10)
        tip = (await log.store.load(Ref("p1", "project", "p1"), no_state)).tip
        stale = type(tip)(tip.ref, 0, 0)
        event = ProjectRenamed(at=START, operation="o", fingerprint="f", name="x")
        for events in ([event], [event, event]):
            with pytest.raises(Exception, match="was appended to"):
                await log.store.append([Change(stale, events)], CONTEXT)
        await log.grow(10, first=10)
        assert (await verify_log(log.nc, keys=None)).ok
        assert await Stream(log.nc, subjects.EVENTS).last_position() == len(await log.all())
