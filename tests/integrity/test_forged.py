"""Forged events: with a right version and a right chain, but not written by handlers."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.project import ProjectRenamed
from eventstore.integrity.archive import verify_file
from eventstore.integrity.audit import verify_log
from eventstore.integrity.checkpoints import Checkpoint, signing_key
from eventstore.integrity.notary import Checkpoints, Notary
from eventstore.integrity.signable import MOST_EXCLUDED
from eventstore.integrity.transfer import restore
from eventstore.log.envelope import Recorded, Ref, seal
from eventstore.log.follow import follow
from eventstore.log.macs import MAC, EventKeys, Key, Keys
from eventstore.log.store import Change, EventStore, Tampered, Tip
from tests.event_keys import KEY, KEYS, STRANGERS
from tests.integrity.logs import CONTEXT, START, Log, example, no_state, running

P1 = Ref("p1", "project", "p1")
FORGED = ProjectRenamed(at=START, operation="o", fingerprint="f", name="forged")


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    async with running() as made:
        await made.grow(0)
        yield made


def true(log: Log, keys: EventKeys = KEYS) -> EventStore:
    return EventStore(log.nc, keys)


def notary(log: Log, keys: EventKeys = KEYS) -> Notary:
    return Notary(log.nc, signing_key(log.home / "checkpoint.key"), event_keys=keys)


async def write(log: Log, *, keys: EventKeys = KEYS, store: EventStore | None = None) -> Recorded:
    """One more true event of the project p1."""
    store = store or true(log, keys)
    tip = (await store.load(P1, no_state)).tip
    return (await store.append([Change(tip, [example(P1, tip.version, tip.version)])], CONTEXT))[0]


async def forge(log: Log, mac: str | None = None, **headers: str) -> int:
    """Store an event that follows the last true one; its position."""
    tip = (await true(log).load(P1, no_state)).tip
    made, body = seal(P1, tip.version + 1, tip.digest, FORGED, CONTEXT)
    sent = {**made, **headers, **({MAC: mac} if mac is not None else {})}
    return (await log.nc.jetstream().publish(P1.subject, body, headers=sent)).seq


async def versions(log: Log) -> list[int]:
    return [one.position for one in await true(log).history(P1)]


async def test_a_forged_event_with_a_right_chain_is_ignored_and_the_next_true_one_is_stored(log: Log) -> None:
    first = await write(log)
    position = await forge(log)
    again = await forge(log, STRANGERS.mac(first.digest))
    assert await versions(log) == [first.position]
    second = await write(log)
    assert second.version == first.version + 1
    assert await versions(log) == [first.position, second.position]
    with pytest.raises(Tampered) as found:
        await true(log).history(P1, verified=True)
    assert found.value.position == position < again


async def test_a_forger_cannot_use_up_the_id_of_the_next_message(log: Log) -> None:
    first = await write(log)
    await forge(log, **{"Nats-Msg-Id": f"project.p1:{first.version + 1}"})
    assert (await write(log)).version == first.version + 1


@pytest.mark.parametrize("change", ["subject", "actor", "version", "body", "key", "tag", "none"])
async def test_a_mac_fits_its_event_only(log: Log, change: str) -> None:
    await write(log)
    store, other = true(log), Ref("p2", "project", "p2")
    at, name = (other, "p2") if change == "subject" else (P1, "p1")
    tip = (await store.load(P1, no_state)).tip
    headers, body = seal(P1, tip.version + 1, tip.digest, FORGED, CONTEXT)
    whole = Recorded(9, P1.subject, headers, body, START)
    sent = {**headers, MAC: KEYS.mac(whole.digest)}
    match change:
        case "actor":
            sent["ce-actor"] = "root"
        case "version":
            sent["ce-typeversion"] = "2"
        case "body":
            body = body.replace(b"forged", b"FORGED")
        case "key":
            sent[MAC] = STRANGERS.mac(whole.digest)
        case "tag":
            sent[MAC] = sent[MAC][:-1] + ("0" if sent[MAC][-1] != "0" else "1")
        case "none":
            del sent[MAC]
    message = Recorded(9, at.subject, sent, body, START)
    found = KEYS.fault(9, message.digest, sent.get(MAC))
    assert found is not None, name
    assert found.code == ("no_mac" if change == "none" else "forged")


async def test_events_up_to_the_recorded_position_need_no_mac(log: Log) -> None:
    old = await write(log, store=EventStore(log.nc))
    keys = Keys(KEYS.by_id, KEYS.signer, old.position)
    assert [one.position for one in await true(log, keys).history(P1)] == [old.position]
    new = await write(log, keys=keys)
    await EventStore(log.nc).append([Change(Tip(P1).after(new), [FORGED])], CONTEXT)
    assert [one.position for one in await true(log, keys).history(P1)] == [old.position, new.position]


async def test_a_retired_key_signs_nothing_later(log: Log) -> None:
    first, second = await write(log), await write(log)
    retired = Keys({KEY.id: Key(KEY.secret, first.position), **STRANGERS.by_id}, STRANGERS.signer, 0)
    assert [one.position for one in await true(log, retired).history(P1)] == [first.position]
    assert second.position > first.position


async def test_feeds_name_a_forged_event(log: Log) -> None:
    first, position = await write(log), await forge(log)
    shown: list[dict[str, Any]] = []
    async for batch in follow(log.nc, 0, event_keys=KEYS):
        shown += [one.cloud_event() for one in batch]
        if shown[-1]["position"] == position:
            break
    assert [one.get("fault") for one in shown] == [None, "no_mac"]
    assert "data" in shown[0]
    assert "data" not in shown[1]
    assert first.position == shown[0]["position"]


async def test_the_notary_excludes_a_forged_event_and_goes_on(log: Log) -> None:
    first = await write(log)
    signed = await notary(log).step()
    assert signed is not None
    assert (signed.position, signed.excluded) == (first.position, None)
    held = notary(log)
    positions = [await forge(log) for _ in range(3)]
    assert await held.step() is None  # it never signs at a forged event
    last = await write(log)
    signed = await held.step()
    assert signed is not None
    assert (signed.position, signed.excluded) == (last.position, f"{positions[0]}-{positions[-1]}")
    last = await write(log)
    signed = await notary(log).step()  # another process, which remembers nothing
    assert signed is not None
    assert (signed.position, signed.excluded) == (last.position, None)
    assert signed.signed_by(log.keys)


async def test_many_forged_events_do_not_stop_the_notary(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_EXCLUDED > 2
    monkeypatch.setattr("eventstore.integrity.signable.MOST_EXCLUDED", 2)
    await write(log)
    for _ in range(5):
        await forge(log)
        last = await write(log)
    held, signed = notary(log), list[Checkpoint]()
    while (one := await held.step()) is not None:
        signed.append(one)
    assert len(signed) == 3
    assert signed[-1].position == last.position
    assert sum(len(one.excluded_ranges) for one in signed) == 5


async def test_a_stranger_cannot_hide_a_forged_event_from_the_checkpoints(log: Log, tmp_path: Path) -> None:
    await write(log)
    await forge(log)
    await write(log)
    hider = Notary(log.nc, signing_key(tmp_path / "stranger.key"))  # it has no event keys, and excludes nothing
    hidden = await hider.step()
    assert hidden is not None
    assert hidden.excluded is None
    signed = await notary(log).step()
    assert signed is not None
    assert signed.excluded == "2"
    assert [found async for _, found in Checkpoints(log.nc).valid()] == [hidden, signed]


async def test_verify_names_a_forged_event_with_and_without_the_event_keys(log: Log, tmp_path: Path) -> None:
    await write(log)
    position = await forge(log)
    await write(log)
    await notary(log).step()
    report = await verify_log(log.nc, keys=log.keys, event_keys=KEYS)
    assert report.macs_checked
    assert [(found.code, found.position, found.message) for found in report.findings] == [
        ("no_mac", position, position)
    ]
    report = await verify_log(log.nc, keys=log.keys)
    assert not report.macs_checked
    assert [(found.code, found.position) for found in report.findings] == [("forged", position)]
    await log.export(tmp_path / "log.jsonl")
    report = verify_file(tmp_path / "log.jsonl", keys=log.keys, event_keys=KEYS)
    assert [(found.code, found.position) for found in report.findings] == [("no_mac", position)]
    assert report.genuine
    report = verify_file(tmp_path / "log.jsonl", keys=log.keys)
    assert [(found.code, found.position) for found in report.findings] == [("forged", position)]
    assert report.genuine


async def test_a_restored_log_keeps_its_macs(log: Log, tmp_path: Path) -> None:
    first = await write(log)
    await forge(log)
    second = await write(log)
    await notary(log).step()
    await log.export(tmp_path / "log.jsonl")
    async with running() as empty:
        await restore(empty.nc, tmp_path / "log.jsonl", keys=log.keys, event_keys=KEYS)
        assert await versions(empty) == [first.position, second.position]
