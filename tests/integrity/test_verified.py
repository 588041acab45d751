"""A verification that continues an earlier one: what it reads, what it still finds, and when it reads everything."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from eventstore.integrity import verified
from eventstore.integrity.audit import verify_log
from eventstore.integrity.checkpoints import Keys as PublicKeys, fingerprint, signing_key
from eventstore.integrity.notary import Checkpoints
from eventstore.integrity.report import Report
from eventstore.integrity.verified import Kept
from eventstore.log import keyring
from eventstore.log.envelope import Recorded
from eventstore.log.keyring import Keyring
from runtime import subjects
from runtime.files import files
from tests.event_keys import put_keys
from tests.integrity.logs import Log, altered, running
from tests.integrity.test_sound import DAMAGES, Signed

STATE = "verified.state"


class Case:
    """A log with MACs that was signed and verified, then grew. `home`: the folder of the verifier."""

    def __init__(self, log: Log, home: Path) -> None:
        self.log = log
        self.home = home
        self.trusted: PublicKeys = log.keys
        self.foreign: Sequence[str] = ()
        self.signed = 0

    async def verify(self, log: Log | None = None, *, everything: bool = False) -> Report:
        ring = Keyring(self.home / "event.keys")
        return await verify_log(
            (log or self.log).nc,
            keys=self.trusted,
            foreign=self.foreign,
            event_keys=ring,
            kept=Kept(self.home / STATE, ring, self.trusted, self.foreign),
            everything=everything,
        )

    @asynccontextmanager
    async def copy(self, change: Callable[[list[Recorded]], list[Recorded]]) -> AsyncIterator[Log]:
        """Another server, with the same checkpoints and a changed log."""
        checkpoints = Checkpoints(self.log.nc)
        signed = [await checkpoints.number(number) for number in range(1, await checkpoints.count() + 1)]
        async with running() as other:
            await other.lay(change(await self.log.all()))
            for number, checkpoint in enumerate(signed):
                assert checkpoint is not None
                await Checkpoints(other.nc).append(checkpoint, number)
            yield other


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    put_keys(tmp_path, since=0)
    async with running() as made:
        log = Signed(made.home, made.server, made.nc)
        case = Case(log, tmp_path)
        await log.grow(20)
        checkpoint = await log.notary().step()
        assert checkpoint is not None
        case.signed = checkpoint.position
        await log.grow(3, first=20)
        first = await case.verify()
        assert first.ok
        assert (first.first, first.before, first.doubt) == (1, 0, None)
        await log.grow(15, first=23)
        yield case


def changed(position: int, change: Callable[[Recorded], Recorded]) -> Callable[[list[Recorded]], list[Recorded]]:
    return lambda events: [change(event) if event.position == position else event for event in events]


def spoiled(event: Recorded) -> Recorded:
    return altered(event, ce_actor="mallory")


async def test_only_what_came_after_the_last_checkpoint_is_read(case: Case) -> None:
    last = await case.log.store.last_position()
    report = await case.verify()
    assert (report.first, report.before, report.last) == (case.signed + 1, case.signed, last)
    assert report.ok
    assert report.events == last - case.signed
    assert report.proven == case.signed
    assert report.verified_at is not None
    whole = await case.verify(everything=True)
    assert (whole.first, whole.events, whole.before) == (1, last, 0)
    assert (whole.digest, whole.aggregates, whole.last) == (report.digest, report.aggregates, last)
    checkpoint = await case.log.notary().step()
    assert checkpoint is not None
    later = await case.verify()
    assert (later.before, later.proven, later.checkpoints) == (case.signed, last, 1)
    again = await case.verify()
    assert (again.before, again.events, again.ok, again.proven) == (last, 0, True, last)


async def test_a_change_of_what_was_verified_is_found_by_reading_everything(case: Case) -> None:
    async with case.copy(changed(4, spoiled)) as other:
        report = await case.verify(other)
        assert report.ok
        assert report.before == case.signed > 4, "it says what it did not read"
        whole = await case.verify(other, everything=True)
        assert {"forged", "altered"} <= {finding.code for finding in whole.findings}
        assert not (case.home / STATE).exists(), "the state is worth nothing now"
        assert (await case.verify(other)).findings == whole.findings


async def test_a_change_of_the_event_at_the_checkpoint_is_found(case: Case) -> None:
    async with case.copy(changed(case.signed, spoiled)) as other:
        report = await case.verify(other)
        assert report.doubt == f"the event at position {case.signed} is not the one that was verified"
        assert "forged" in {finding.code for finding in report.findings}
        assert report.before == 0


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "nothing"])
async def test_each_damage_that_came_later_is_found(case: Case, name: str) -> None:
    await case.log.notary().step()
    async with case.copy(lambda events: DAMAGES[name](events, case.signed + 4)) as other:
        state = (case.home / STATE).read_bytes()
        report = await case.verify(other)
        assert report.before == case.signed
        (case.home / STATE).write_bytes(state)
        whole = await case.verify(other, everything=True)
        assert report.findings == whole.findings
        assert (report.digest, report.proven) == (whole.digest, whole.proven)


async def test_malformed_messages_that_are_known_are_named_each_time(case: Case) -> None:
    log = case.log
    await log.nc.jetstream().publish((await log.all())[0].subject, b"junk")
    await log.grow(5, first=60)
    signed = await log.notary().step()
    assert signed is not None
    first = await case.verify()
    assert [finding.code for finding in first.findings] == ["shape"]
    await log.grow(5, first=70)
    report = await case.verify()
    assert report.before == signed.position
    assert report.findings == first.findings == (await case.verify(everything=True)).findings


def flipped(case: Case) -> None:
    path = case.home / STATE
    content = path.read_bytes()
    at = content.index(b"tip ") + 6
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])


def cut(case: Case) -> None:
    lines = (case.home / STATE).read_bytes().split(b"\n")
    (case.home / STATE).write_bytes(b"\n".join([*lines[:-3], lines[-1]]))


def foreign_file(case: Case) -> None:
    (case.home / STATE).write_bytes(b"\xff{}")


def empty_file(case: Case) -> None:
    (case.home / STATE).write_bytes(b"")


def a_folder(case: Case) -> None:
    (case.home / STATE).unlink()
    (case.home / STATE).mkdir()


def rotated(case: Case) -> None:
    keyring.rotate(case.home / "event.keys")


def retired(case: Case) -> None:
    path = case.home / "event.keys"
    before = keyring.read(path).signer
    keyring.rotate(path)
    keyring.retire(path, before, case.signed + 100)


def trusts_another(case: Case) -> None:
    public = signing_key(case.home / "other.key").public_key()
    case.trusted = {**case.trusted, fingerprint(public): public}


def accepts_more(case: Case) -> None:
    case.foreign = ("acme.*",)


def younger(case: Case) -> None:
    stored = keyring.read(case.home / "event.keys")
    changed_ = stored.model_copy(update={"since": 3})
    files.put(case.home / "event.keys", changed_.model_dump_json(exclude_none=True))


DOUBTS = (flipped, cut, foreign_file, empty_file, rotated, retired, trusts_another, accepts_more, younger)


@pytest.mark.parametrize("doubt", DOUBTS)
async def test_everything_is_read_when_the_state_is_in_doubt(case: Case, doubt: Callable[[Case], None]) -> None:
    doubt(case)
    report = await case.verify()
    assert report.doubt
    assert report.first == 1
    assert report.events == report.last
    assert report.ok
    assert (await case.verify()).before == case.signed, "it is kept again"


async def test_a_state_that_cannot_be_read_or_written_stops_nothing(case: Case) -> None:
    a_folder(case)
    for _ in range(2):
        report = await case.verify()
        assert report.doubt
        assert report.events == report.last
        assert report.ok


async def test_everything_is_read_by_a_program_with_other_rules(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "RULES", verified.RULES + 1)
    report = await case.verify()
    assert report.doubt
    assert report.first == 1


async def test_everything_is_read_of_another_log(case: Case) -> None:
    """Its checkpoints are others, or it is shorter."""
    async with case.copy(lambda events: events[: case.signed - 1]) as other:
        report = await case.verify(other)
        assert report.doubt == f"the log ends at position {case.signed - 1}, and was verified up to {case.signed}"
        assert "truncated" in {finding.code for finding in report.findings}
    async with running() as made:
        other = Signed(made.home, made.server, made.nc)
        await other.grow(30)
        report = await case.verify(other)
        assert report.first == 1
        await other.nc.jetstream().publish(subjects.CHECKPOINT, b"hi")


async def test_the_state_is_kept_only_up_to_a_checkpoint_that_is_trusted(case: Case) -> None:
    (case.home / STATE).unlink()
    case.trusted = {}
    report = await case.verify()
    assert report.proven == 0
    assert not (case.home / STATE).exists()


async def test_a_stranger_cannot_plant_a_state(case: Case) -> None:
    """With a key of his own, he makes the file as we do: no key of ours made its MAC."""
    case.trusted = case.log.keys
    state = (case.home / STATE).read_bytes()
    theirs = case.home / "theirs"
    theirs.mkdir()
    put_keys(theirs)
    keyring.rotate(theirs / "event.keys")
    stranger = Kept(case.home / STATE, Keyring(theirs / "event.keys"), case.trusted, ())
    honest = Kept(case.home / STATE, Keyring(case.home / "event.keys"), case.trusted, ())
    stranger.save(replace(honest._opened(state), tips={}))
    report = await case.verify()
    assert report.doubt
    assert "no event key" in report.doubt
    assert report.first == 1
