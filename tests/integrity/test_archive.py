"""Exports: identical after a restore, provable with the public key alone, and no damage goes unnamed."""

import random
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from eventstore.integrity import transfer
from eventstore.integrity.archive import verify_file
from eventstore.integrity.checkpoints import fingerprint, public_keys, signing_key
from eventstore.integrity.report import Report
from tests.integrity.logs import Document, Log, rewrite, running

Change = Callable[[list[Document]], list[Document]]


@pytest.fixture(scope="module")
async def log() -> AsyncIterator[Log]:
    """60 numbers' worth of events, signed at three places, the last of them the end."""
    async with running() as made:
        for part in range(3):
            await made.grow(20, first=20 * part)
            assert await made.notary().step() is not None
        yield made


@pytest.fixture(scope="module")
async def exported(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "whole"
    await log.export(path)
    return path


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings}


def named(report: Report) -> set[int]:
    """Every position that a finding speaks of."""
    return {
        number
        for finding in report.findings
        for number in (finding.position, *map(int, re.findall(r"position (\d+)", finding.detail)))
    }


async def test_whole_log_is_proven(log: Log, exported: Path) -> None:
    report = verify_file(exported, keys=log.keys)
    assert report.findings == []
    assert report.first == 1
    assert report.events == report.last == report.proven == await log.store.last_position()
    assert report.checkpoints == 3


async def test_file_and_public_key_are_enough(log: Log, exported: Path, tmp_path: Path) -> None:
    """In a directory with nothing else, by a process that knows no server."""
    shutil.copy(exported, tmp_path / "log")
    shutil.copy(log.home / "checkpoint.pub", tmp_path / "key")
    script = (
        "from pathlib import Path; from eventstore.integrity.archive import verify_file; "
        "from eventstore.integrity.checkpoints import public_keys; "
        "report = verify_file(Path('log'), keys=public_keys(Path('key'))); assert report.ok; print(report.proven)"
    )
    root = Path(__file__).parents[2]
    proven = subprocess.check_output(  # noqa: ASYNC221
        [sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(root)}, text=True
    )
    assert int(proven) == await log.store.last_position()


async def test_signature_can_be_checked_by_openssl(log: Log, tmp_path: Path) -> None:
    import base64

    from eventstore.integrity.notary import Checkpoints

    openssl = shutil.which("openssl")
    assert openssl is not None, "make setup installs it"
    checkpoint = await Checkpoints(log.nc).number(2)
    assert checkpoint is not None
    (tmp_path / "text").write_bytes(checkpoint.text)
    (tmp_path / "signature").write_bytes(base64.b64decode(checkpoint.signature))
    public = ["-pubin", "-inkey", str(log.home / "checkpoint.pub")]
    subprocess.run(  # noqa: ASYNC221
        [openssl, "pkeyutl", "-verify", *public, "-rawin", "-in", "text", "-sigfile", "signature"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )


async def test_another_key_proves_nothing(exported: Path, tmp_path: Path) -> None:
    public = signing_key(tmp_path / "checkpoint.key").public_key()
    report = verify_file(exported, keys={fingerprint(public): public})
    assert codes(report) == {"signature", "unsigned"}
    assert report.proven == 0


def test_a_new_key_does_not_disown_what_the_old_one_signed(tmp_path: Path) -> None:
    key = tmp_path / "checkpoint.key"
    old = fingerprint(signing_key(key).public_key())
    assert key.stat().st_mode & 0o777 == 0o600
    key.unlink()
    new = fingerprint(signing_key(key).public_key())
    assert list(public_keys(tmp_path / "checkpoint.pub")) == [new, old]


# ── damage ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def line_starts(whole: bytes) -> list[int]:
    return [0, *(m.end() for m in re.finditer(b"\n", whole))][:-1]


def test_any_flipped_bit_is_found_and_named(log: Log, exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    keys, starts = log.keys, line_starts(whole)
    positions: list[int] = []  # of the event that each line holds, or of the last one before it
    for start in starts:
        match = re.match(rb'.{74}"kind":"event","position":(\d+)', whole[start : start + 140])
        positions.append(int(match[1]) if match else (positions or [0])[-1])
    seeded = random.Random(20300102)
    target = tmp_path / "flipped"
    places = [seeded.randrange(len(whole)) for _ in range(300)] + [0, 74, starts[1] - 1, starts[-1], len(whole) - 1]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << seeded.randrange(8)
        target.write_bytes(damaged)
        report = verify_file(target, keys=keys)
        number = sum(start <= place for start in starts)
        lines = [int(n) for f in report.findings for n in re.findall(r"line (\d+)", f.detail)]
        assert not report.ok, place
        assert number in lines or number == 1, (place, report.findings)
        near = {positions[number - 1], positions[number - 1] + 1}
        assert near & named(report), (place, report.findings)


def test_cut_off_anywhere(log: Log, exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    target = tmp_path / "short"
    for end in [*line_starts(whole)[1:], *range(1, len(whole), 4999)]:
        target.write_bytes(whole[:end])
        report = verify_file(target, keys=log.keys)
        assert "truncated" in codes(report) or "header" in codes(report), end
    target.write_bytes(b"")
    assert not verify_file(target, keys=log.keys).ok
    target.write_bytes(whole + b"{}\n")
    assert not verify_file(target, keys=log.keys).ok


# ── forgery: every sum made right again ─────────────────────────────────────────────────────────────────────────────


def forged(log: Log, exported: Path, tmp_path: Path, change: Change, signed: bool = True) -> Report:
    target = tmp_path / "forged"
    rewrite(exported, target, change)
    return verify_file(target, keys=log.keys, signed=signed)


def events_of(documents: list[Document]) -> list[Document]:
    return [d for d in documents if d["kind"] == "event"]


def test_forger_changes_nothing_unseen(log: Log, exported: Path, tmp_path: Path) -> None:
    """The forger's tools do work: a file rewritten as it was verifies."""
    assert forged(log, exported, tmp_path, lambda documents: documents).ok


def test_changed_body(log: Log, exported: Path, tmp_path: Path) -> None:
    for position in (1, 9, 33):

        def change(documents: list[Document], position: int = position) -> list[Document]:
            event = events_of(documents)[position - 1]
            event["body"] = event["body"].replace("Näme", "Fake")
            return documents

        report = forged(log, exported, tmp_path, change)
        assert "altered" in codes(report)
        assert position in {f.position for f in report.findings if f.code == "chain"}


def test_changed_tip_is_found_by_the_checkpoint(log: Log, exported: Path, tmp_path: Path) -> None:
    """No later event of the aggregate disagrees: only what was signed does, and says between which positions."""

    def change(documents: list[Document]) -> list[Document]:
        event = events_of(documents)[-1]
        event["headers"]["ce-actor"] = "mallory"
        return documents

    report = forged(log, exported, tmp_path, change)
    assert codes(report) == {"forked", "unsigned"}
    assert "this event is another one" in report.findings[0].detail
    assert report.proven < report.last


def test_missing_event(log: Log, exported: Path, tmp_path: Path) -> None:
    def change(documents: list[Document]) -> list[Document]:
        return [d for d in documents if (d["kind"], d.get("position")) != ("event", 17)]

    report = forged(log, exported, tmp_path, change)
    assert 17 in {f.position for f in report.findings if f.code == "missing"}
    assert {"missing", "version"} <= codes(report)


def test_missing_event_and_all_behind_it_moved_up(log: Log, exported: Path, tmp_path: Path) -> None:
    def change(documents: list[Document]) -> list[Document]:
        kept = [d for d in documents if (d["kind"], d.get("position")) != ("event", 17)]
        for event in events_of(kept):
            event["position"] -= event["position"] > 17
        return kept

    report = forged(log, exported, tmp_path, change)
    assert {"version", "truncated"} <= codes(report)
    assert report.proven == 0


def test_reordered_events(log: Log, exported: Path, tmp_path: Path) -> None:
    def swap(documents: list[Document]) -> list[Document]:
        at = [i for i, d in enumerate(documents) if d["kind"] == "event" and d["position"] in (11, 12)]
        documents[at[0]], documents[at[1]] = documents[at[1]], documents[at[0]]
        return documents

    def swap_and_renumber(documents: list[Document]) -> list[Document]:
        swapped = swap(documents)
        for event in events_of(swapped):
            event["position"] = {11: 12, 12: 11}.get(event["position"], event["position"])
        return swapped

    report = forged(log, exported, tmp_path, swap)
    assert {11, 12} & {f.position for f in report.findings if f.code in ("order", "missing")}
    assert "altered" in codes(forged(log, exported, tmp_path, swap_and_renumber))


def test_truncated_tail(log: Log, exported: Path, tmp_path: Path) -> None:
    """Without its last events the file fits together; a checkpoint that is left, or none, tells."""

    def keep_checkpoints(documents: list[Document]) -> list[Document]:
        return [d for d in documents if d["kind"] != "event" or d["position"] <= 60]

    def drop_them_too(documents: list[Document]) -> list[Document]:
        return [d for d in documents if d["kind"] == "header" or d["position"] <= 60]

    report = forged(log, exported, tmp_path, keep_checkpoints)
    assert (60, "truncated") in {(f.position, f.code) for f in report.findings}
    report = forged(log, exported, tmp_path, drop_them_too)
    assert codes(report) == {"unsigned"}
    assert forged(log, exported, tmp_path, drop_them_too, signed=False).ok


def test_forged_checkpoints(log: Log, exported: Path, tmp_path: Path) -> None:
    def resign(documents: list[Document]) -> list[Document]:
        for document in documents:
            if document["kind"] == "checkpoint":
                document["time"] = "2031-01-01T00:00:00Z"
        return documents

    def without_the_second(documents: list[Document]) -> list[Document]:
        second = [d for d in documents if d["kind"] == "checkpoint"][1]
        return [d for d in documents if d is not second]

    assert codes(forged(log, exported, tmp_path, resign)) == {"signature", "unsigned"}
    assert codes(forged(log, exported, tmp_path, without_the_second)) == {"checkpoint"}


# ── ranges ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_ranges_prove_themselves(log: Log, tmp_path: Path) -> None:
    path = tmp_path / "part"
    last = await log.store.last_position()
    for after, to in ((0, 5), (10, 20), (23, 40), (last - 1, last)):
        done = await log.export(path, after=after, to=to)
        report = verify_file(path, keys=log.keys)
        assert report.findings == [], (after, to)
        assert report.events == report.last - after == done.events
        assert report.last >= min(to, last)
        assert report.proven in (0, report.last)
    for after, end in ((last, None), (last + 5, None), (7, 7), (7, 3), (30, last + 9)):
        with pytest.raises(transfer.Refused, match=f"the log ends at {last}"):
            await log.export(path, after=after, to=end)


async def test_a_range_needs_its_anchors(log: Log, tmp_path: Path) -> None:
    path = tmp_path / "part"
    await log.export(path, after=30, to=40)
    for change in (
        lambda documents: [d for d in documents if d["kind"] != "anchor"],
        lambda documents: [
            {**d, "body": d["body"].replace("Näme", "Fake")} if d["kind"] == "anchor" else d for d in documents
        ],
    ):
        report = forged(log, path, tmp_path, change)
        assert codes(report) <= {"anchor", "chain"}
        assert not report.ok
    forgery = forged(log, path, tmp_path, lambda documents: [{**documents[0], "digest": "1" * 64}, *documents[1:]])
    assert not forgery.ok
