"""`verify_log` and the notary against logs on real servers that are not what they should be."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.client import Client

from eventstore.integrity import transfer
from eventstore.integrity.archive import verify_file
from eventstore.integrity.audit import verify_log
from eventstore.integrity.checkpoints import LogDigest, fingerprint, sign, signing_key
from eventstore.integrity.notary import Checkpoints, Disagrees, Notary
from eventstore.integrity.report import Report
from eventstore.log.envelope import GENESIS, Recorded
from eventstore.log.follow import follow
from eventstore.log.jetstream import Stream
from eventstore.parking.parked import Parked, record_of
from eventstore.parking.parking import HOLES, Parking
from handlers.managers.notary import Signing
from runtime import subjects
from runtime.bus import streams
from tests.integrity.logs import START, Log, altered, running


async def signed(log: Log) -> list[Recorded]:
    """30 numbers' worth of events, signed at two places, and the events."""
    await log.grow(15)
    assert await log.notary().step() is not None
    await log.grow(15, first=15)
    assert await log.notary().step() is not None
    return await log.all()


async def found(log: Log, events: list[Recorded]) -> Report:
    """What is said of a server that holds these events and the same checkpoints."""
    async with running() as other:
        await other.lay(events)
        checkpoints, target = Checkpoints(log.nc), Checkpoints(other.nc)
        for number in range(1, await checkpoints.count() + 1):
            checkpoint = await checkpoints.number(number)
            assert checkpoint is not None
            await target.append(checkpoint, number - 1)
        return await verify_log(other.nc, keys=log.keys)


def has(report: Report, code: str, position: int) -> bool:
    return (code, position) in {(f.code, f.position) for f in report.findings}


async def test_honest_log() -> None:
    async with running() as log:
        events = await signed(log)
        report = await verify_log(log.nc, keys=log.keys)
        assert report.findings == []
        assert report.proven == report.last == len(events)
        assert report.checkpoints == 2
        assert (await verify_log(log.nc, keys=None)).proven == 0
        assert (await found(log, events)).ok  # and so says the copy


async def test_each_fault_is_named() -> None:
    async with running() as log:
        events = await signed(log)
        last = len(events)
        tip = next(e for e in reversed(events) if e.version > 1)

        def changed(position: int, change: Callable[[Recorded], Recorded]) -> list[Recorded]:
            return [change(e) if e.position == position else e for e in events]

        flipped = await found(log, changed(5, lambda e: replace(e, body=e.body.replace(b"alice", b"x") + b" ")))
        assert has(flipped, "chain", 5)
        assert has(flipped, "altered", 1)
        flipped_tip = await found(log, changed(tip.position, lambda e: altered(e, ce_actor="mallory")))
        assert {f.code for f in flipped_tip.findings} <= {"altered", "forked"}
        assert not flipped_tip.ok
        cut = await found(log, events[: last - 4])
        assert has(cut, "truncated", last - 4)
        gone = await found(log, [e for e in events if e.position != 9])  # the server numbers the others anew
        assert "version" in {f.code for f in gone.findings}
        swapped = await found(log, [*events[:10], events[11], events[10], *events[12:]])
        assert not swapped.ok
        twice = await found(log, [*events, events[3]])
        assert has(twice, "version", last + 1)
        shapeless = await found(log, [*events, altered(events[3], ce_aggregateversion="x")])
        assert has(shapeless, "shape", last + 1)


async def test_position_that_the_server_lost() -> None:
    """A stream that allows deletion is named, and so is what was deleted."""
    async with running() as log:
        events = await signed(log)
    async with running() as weak:
        await with_holes(weak, events, 7)
        report = await verify_log(weak.nc, keys=None)
    assert has(report, "missing", 7)
    assert "stream" in {f.code for f in report.findings}


async def with_holes(log: Log, events: list[Recorded], *holes: int) -> None:
    """Lay these events into a log that allows deletion, and delete some of them."""
    js = log.nc.jetstream()
    await js.delete_stream(subjects.EVENTS)
    await js.add_stream(replace(streams.events_stream(1), deny_delete=False, deny_purge=False))
    for recorded in events:
        await js.publish(recorded.subject, recorded.body, headers=dict(recorded.headers))
    for position in holes:
        await js.delete_msg(subjects.EVENTS, position)


async def test_positions_without_a_message_are_passed_over(tmp_path: Path) -> None:
    """As a full disk leaves them: at the beginning, several, at the end. All else is signed; they stay named."""
    async with running() as log, running() as holed:
        await log.grow(24)
        events = await log.all()
        last = events[-1].position
        await with_holes(holed, events, 1, 6, 7, 12, last)
        assert await holed.store.last_position() == last - 1
        checkpoint = await holed.notary().step()
        assert checkpoint is not None
        assert checkpoint.position == last - 1
        parked = [found async for found in holes(holed.nc)]
        assert [record.key for record in parked] == ["1", "6", "12"], "degraded until somebody drops them"
        assert parked[1].error == "no message is at positions 6 to 7: an archive of this log cannot be restored"
        report = await verify_log(holed.nc, keys=holed.keys)
        assert report.proven == last - 1
        assert all(has(report, "missing", position) for position in (1, 6, 12))
        assert {"altered", "forked", "truncated"}.isdisjoint({finding.code for finding in report.findings})
        await holed.grow(5, first=900)
        await Parking(holed.nc).drop(HOLES, "1", actor="alice", reason="seen")
        assert await holed.notary().step() is not None, "it goes on from there"
        assert [record.key async for record in holes(holed.nc)] == ["6", "12", str(last)], "that one is behind by now"
        await holed.nc.jetstream().purge_stream(subjects.PARKED)  # as if an earlier version had signed past them
        await holed.grow(1, first=990)
        assert await holed.notary().step() is not None
        assert [record.key async for record in holes(holed.nc)] == ["1", "6", "12", str(last)]
        exported = await holed.export(tmp_path / "holed")
        assert exported.events == len(await holed.all())
        copy = verify_file(tmp_path / "holed", keys=holed.keys)
        assert {finding.code for finding in copy.findings} == {"missing", "version"}
        (first, *_) = [batch async for batch in batches(holed, exported.events)]
        assert first.position == 2
        with pytest.raises(transfer.Unsound, match="missing"):
            await transfer.restore(log.nc, tmp_path / "holed", keys=holed.keys)


async def holes(nc: Client) -> AsyncIterator[Parked]:
    """The holes that are parked, and open."""
    for recorded in await Stream(nc, subjects.PARKED).read(0, subjects.parked_of(HOLES)):
        record = await Parking(nc).get(HOLES, record_of(recorded).key)
        if record.open:
            yield record


async def batches(log: Log, events: int) -> AsyncIterator[Recorded]:
    """What a feed hands out from the beginning on, so many of them."""
    async with contextlib.aclosing(follow(log.nc, 0, event_keys=None)) as found:
        async for batch in found:
            for recorded in batch:
                yield recorded
            events -= len(batch)
            if not events:
                return


async def test_what_was_signed_and_is_missing_is_never_signed_again() -> None:
    async with running() as log, running() as holed:
        await log.grow(12)
        events = await log.all()
        await with_holes(holed, events)
        one, other = holed.notary(), holed.notary()
        await one.step()
        await holed.nc.jetstream().delete_msg(subjects.EVENTS, events[-1].position)
        await holed.grow(3, first=900)
        for notary in (one, other):  # the one that has seen it, and one that reads from the start
            with pytest.raises(Disagrees):
                await notary.step()


async def test_a_hole_that_only_one_replica_has_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as log:
        await log.grow(12)
        notary = log.notary()
        read = notary._store.read

        async def lacks(after: int) -> list[Recorded]:
            return [recorded for recorded in await read(after) if recorded.position != 5]

        monkeypatch.setattr(notary._store, "read", lacks)
        with pytest.raises(Disagrees, match="position 5 is missing"):
            await notary.step()


async def test_older_copy_that_went_on(tmp_path: Path) -> None:
    """The log of a restored backup fits together. What was kept elsewhere shows where it parts."""
    old = tmp_path / "old"
    async with running() as log:
        await log.grow(10)
        await log.notary().step()
        together = await log.store.last_position()
        await log.export(tmp_path / "early")
        await log.server.stop()
        shutil.copytree(log.home, old)
        async with running(log.home) as again:
            await again.grow(20, first=10)
            await again.notary().step()
            await again.export(tmp_path / "late")
            keys = again.keys
            true = await again.all()
            checkpoints = await Checkpoints(again.nc).number(2)
            assert checkpoints is not None
    async with running(old) as forked:
        await forked.grow(25, first=500)
        assert (await verify_log(forked.nc, keys=keys)).ok
        assert (await verify_log(forked.nc, keys=keys, against=tmp_path / "early")).ok
        report = await verify_log(forked.nc, keys=keys, against=tmp_path / "late")
        assert has(report, "forked", together + 1)
        await Checkpoints(forked.nc).append(checkpoints, 1)  # only the log was put back, the checkpoints were not
        report = await verify_log(forked.nc, keys=keys)
        assert has(report, "forked", together + 1)
        with pytest.raises(Disagrees):
            await forked.notary().step()
    async with running() as short:
        await short.lay(true[: together + 2])
        report = await verify_log(short.nc, keys=keys, against=tmp_path / "late")
        assert has(report, "truncated", together + 2)


async def test_notary_goes_on_from_the_last_checkpoint() -> None:
    async with running() as log:
        events = await signed(log)
        running_digest = LogDigest()
        for recorded in events:
            running_digest = running_digest.after(recorded)
        last = await Checkpoints(log.nc).number(2)
        assert last is not None
        assert last.at == running_digest
        notary = log.notary()
        assert await notary.step() is None  # nothing new, so nothing is signed
        await log.grow(1, first=99)
        one, other = await asyncio.gather(notary.step(), log.notary().step())
        assert (one is None) != (other is None)
        assert await Checkpoints(log.nc).count() == 3
        assert (await verify_log(log.nc, keys=log.keys)).ok


async def test_notary_on_a_schedule() -> None:
    async with running() as log:
        task = asyncio.create_task(Signing(log.notary()).driver(every=0.05).run())
        for number in range(3):
            await log.grow(1, first=number)
            for _ in range(600):
                newest = await Checkpoints(log.nc).number(await Checkpoints(log.nc).count())
                if newest is not None and newest.position == await log.store.last_position():
                    break
                await asyncio.sleep(0.02)
            else:
                pytest.fail("not signed")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await verify_log(log.nc, keys=log.keys)).ok


async def test_notary_does_not_trust_a_stranger(tmp_path: Path) -> None:
    """A checkpoint of an unknown key is walked past, from the log's beginning, and only followed if it is right."""
    async with running() as log:
        await log.grow(10)
        stranger = signing_key(tmp_path / "checkpoint.key")
        public = stranger.public_key()
        await Notary(log.nc, stranger).step()
        await log.grow(5, first=10)
        right = await log.notary().step()
        assert right is not None
        both = {**log.keys, fingerprint(public): public}
        assert (await verify_log(log.nc, keys=both)).ok
        wrong = sign(stranger, right.log, LogDigest(right.position + 1, "1" * 64, GENESIS), right.id, START)
        await log.grow(2, first=15)
        await Checkpoints(log.nc).append(wrong, 2)
        boundless = sign(stranger, right.log, LogDigest(2**63, "1" * 64, GENESIS), right.id, START)
        await Checkpoints(log.nc).append(boundless, 3)
        after = await log.notary().step()
        assert after is not None
        assert after.previous == right.id
        report = await verify_log(log.nc, keys=both)
        assert "forked" in {f.code for f in report.findings}
        for number in ("3", "4"):
            assert (await Parking(log.nc).get("checkpoints", number)).open


async def test_what_is_no_checkpoint_is_passed_over(tmp_path: Path) -> None:
    """Anybody who reaches the bus can store it, and nobody can take it away."""
    bodies = (b"hi", b"", b"{}", b"[" * 5000, b"\xff", b'{"position": 1e999}')
    async with running() as log, running() as empty:
        js, checkpoints = log.nc.jetstream(), Checkpoints(log.nc)
        for body in bodies:  # before the first
            await js.publish(subjects.CHECKPOINT, body)
        await log.grow(4)
        notary = log.notary()
        first = await notary.step()
        assert first is not None
        assert first.previous == GENESIS
        for body in bodies * 4:  # more than are looked at in one go
            await js.publish(subjects.CHECKPOINT, body, headers={"a": "b"})
        await log.grow(4, first=4)
        second = await notary.step()
        assert second is not None
        await js.publish(subjects.CHECKPOINT, b"hi")
        assert await log.notary().step() is None  # nothing is new
        await log.grow(4, first=8)
        third = await log.notary().step()
        assert third is not None
        assert [second.previous, third.previous] == [first.id, second.id]
        report = await verify_log(log.nc, keys=log.keys)
        assert {finding.code for finding in report.findings} == {"checkpoint"}
        assert len(report.findings) == 5 * len(bodies) + 1
        assert (report.proven, report.checkpoints) == (third.position, 3)
        record = await Parking(log.nc).get("checkpoints", "1")
        assert (record.open, record.error, record.body) == (True, "it is no checkpoint", b"hi")
        for position, wanted in ((1, None), (first.position, first), (second.position, second)):
            before, _ = await checkpoints.newest(await checkpoints.before(position))
            assert before == wanted
        for after, to in ((0, None), (0, 1), (first.position, None), (first.position + 1, first.position + 2)):
            exported = await log.export(tmp_path / f"{after}-{to}", after, to)
            assert exported.signed == exported.last
            assert verify_file(tmp_path / f"{after}-{to}", keys=log.keys).ok
        await transfer.restore(empty.nc, tmp_path / "0-None", keys=log.keys)
        assert (await verify_log(empty.nc, keys=log.keys)).ok


async def test_notary_notices_that_the_log_was_exchanged() -> None:
    """A notary that runs on while its server is put back to an older copy signs nothing."""
    async with running() as log, running() as other:
        events = await signed(log)
        notary = log.notary()
        await notary.step()
        await other.lay(events[:-3])
        notary._store = other.store
        with pytest.raises(Disagrees, match="ends at position"):
            await notary.step()
        await other.grow(8, first=900)
        with pytest.raises(Disagrees, match="not the one that was there before"):
            await notary.step()
