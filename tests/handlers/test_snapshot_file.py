"""The file of a snapshot: in doubt it is not used."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from eventstore.log import keyring
from eventstore.log.envelope import Recorded
from eventstore.log.keyring import Keyring
from eventstore.log.store import EventStore, Unavailable
from handlers.managers import snapshots
from handlers.managers.snapshots import Begun, Snapshots, begin, check_log, content_of, paced, thinned
from handlers.world.contents import copied, messages
from handlers.world.snapshot_file import DECIDING, FORMAT, NAME, Header, Writer, code_digest, opened
from handlers.world.world import World
from runtime.files import files
from tests.event_keys import KEY, STRANGER, put_keys
from tests.handlers.logs import made, read

LOG = made(1)


class Log:
    """As much of the log as a start reads."""

    def __init__(self, log: list[Recorded]) -> None:
        self.log = log

    async def last_position(self) -> int:
        return self.log[-1].position

    async def read(self, after: int, filter_: str | None = None, limit: int = 512) -> list[Recorded]:
        return [one for one in self.log if one.position > after][:limit]

    async def between(self, after: int, last: int) -> list[Recorded]:
        return await self.read(after)


def store(log: list[Recorded] = LOG) -> EventStore:
    return cast(EventStore, Log(log))


async def nothing() -> None:
    pass


def of(home: Path, world: World, log: list[Recorded] = LOG, header: Header | None = None) -> Snapshots:
    return Snapshots(home, store(log), Keyring(home / "event.keys"), Begun(world, header), 1, 1.0, nothing)


@pytest.fixture
async def home(tmp_path: Path) -> Path:
    """A home with a snapshot of the whole log."""
    put_keys(tmp_path)
    await of(tmp_path, read(World(), LOG))._write()
    return tmp_path


async def start(home: Path, log: list[Recorded] = LOG) -> Begun:
    return await begin(home, store(log), Keyring(home / "event.keys"))


async def test_a_start_has_the_world_that_was_written(home: Path) -> None:
    path = home / NAME
    assert path.stat().st_mode & 0o777 == 0o600
    begun = await start(home)
    assert begun.header is not None and begun.header.position == begun.world.position == len(LOG)
    whole = read(World(), LOG)
    begun.world.newest = whole.newest
    assert list(messages(copied(begun.world))) == list(messages(copied(whole)))
    assert begun.header.content == await content_of(paced(copied(whole), 1))


async def test_without_a_file_the_whole_log_is_read(tmp_path: Path) -> None:
    put_keys(tmp_path)
    begun = await start(tmp_path)
    assert begun.header is None and begun.world.position == 0


def rewritten(path: Path, **changes: Any) -> None:
    """A file with a right MAC whose header says something else."""
    keys = Keyring(path.parent / "event.keys")
    found = opened(path, keys)
    assert found is not None
    writer = Writer(path, keys.secret()[1])
    for message in found.messages():
        writer.add(message)
    writer.finish(found.header.model_copy(update=changes))


def flipped(at: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[min(len(data) - 1, int(at * len(data)))] ^= 1
        path.write_bytes(data)

    return flip


def cut(bytes_: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, max(0, path.stat().st_size - bytes_))


def by_a_stranger(path: Path) -> None:
    """Whoever can write the file, and has no event key."""
    found = opened(path, Keyring(path.parent / "event.keys"))
    assert found is not None
    writer = Writer(path, STRANGER.secret)
    for message in found.messages():
        writer.add(message)
    writer.finish(found.header)


def other_keys(path: Path) -> None:
    keyring.rotate(path.parent / "event.keys")


def retired(path: Path) -> None:
    keyring.rotate(path.parent / "event.keys")
    keyring.retire(path.parent / "event.keys", KEY.id, 10**6)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_link(path: Path) -> None:
    path.rename(path.parent / "else")
    path.symlink_to(path.parent / "else")


DOUBTS: dict[str, Callable[[Path], object]] = {
    **{f"a bit at {at} is flipped": flipped(at) for at in (0, 0.001, 0.01, 0.3, 0.7, 0.99, 1)},
    **{f"{count} bytes are missing": cut(count) for count in (1, 8, 31, 32, 33, 40, 41, 500, 10**9)},
    "bytes are added": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "it is something else": lambda path: path.write_bytes(b"x" * 10_000),
    "it is only the format": lambda path: path.write_bytes(FORMAT),
    "it has a huge header": lambda path: path.write_bytes(FORMAT + b"\xff" * 200),
    "a stranger wrote it": by_a_stranger,
    "another version wrote it": lambda path: rewritten(path, code="0" * 64),
    "another log": lambda path: rewritten(path, log="OTHER"),
    "other events count": lambda path: rewritten(path, judges="0 x:1"),
    "it names a key that is not there": lambda path: rewritten(path, key="00000000"),
    "it is of a later position": lambda path: rewritten(path, position=10**6, marks=((10**6, "0" * 64),)),
    "it is of another position": lambda path: rewritten(path, position=3),
    "it names no message": lambda path: rewritten(path, marks=()),
    "the last message is another one": lambda path: rewritten(path, marks=((len(LOG), "0" * 64),)),
    "an earlier message is another one": lambda path: rewritten(
        path, marks=((5, "0" * 64), (len(LOG), LOG[-1].digest))
    ),
    "a key was added": other_keys,
    "its key is retired": retired,
    "it is a folder": as_folder,
    "it is a link": as_link,
}


@pytest.mark.parametrize("doubt", DOUBTS)
async def test_in_doubt_the_whole_log_is_read(home: Path, doubt: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (await start(home)).header is not None
    DOUBTS[doubt](home / NAME)
    begun = await start(home)
    assert begun.header is None and begun.world.position == 0 and not begun.world.ids("vm")
    assert "snapshot of the world not used" in capsys.readouterr().out
    if doubt != "it is a folder":
        assert not (home / NAME).exists()


async def test_content_that_cannot_be_read_is_a_bug_and_the_whole_log_is_read(home: Path) -> None:
    keys = Keyring(home / "event.keys")
    found = opened(home / NAME, keys)
    assert found is not None
    whole = list(found.messages())
    for broken in (b"\xc1", b"\x93\x01\x02\x03", whole[-1], b""):
        writer = Writer(home / NAME, keys.secret()[1])
        for message in [*whole[:1], broken]:
            writer.add(message)
        writer.finish(found.header)
        begun = await start(home)
        assert not begun.header or broken == whole[-1] or broken == b"", broken
        if begun.header is None:
            assert begun.world.position == 0 and not begun.world.ids("vm")


@pytest.mark.parametrize("log", [LOG[:-1], [*LOG[:-1], LOG[-2]], made(2)])
async def test_a_snapshot_of_another_log_is_not_used(home: Path, log: list[Recorded]) -> None:
    log = [Recorded(n, one.subject, one.headers, one.body, one.stored_at) for n, one in enumerate(log, 1)]
    assert (await start(home, log)).header is None


async def test_a_replica_that_lags_is_no_doubt(home: Path) -> None:
    """A read may be answered by a replica that has not the newest messages."""

    class Lagging(Log):
        async def read(self, after: int, filter_: str | None = None, limit: int = 512) -> list[Recorded]:
            return [] if limit == 1 else await super().read(after, filter_, limit)

    found = opened(home / NAME, Keyring(home / "event.keys"))
    assert found is not None
    await check_log(found.header, cast(EventStore, Lagging(LOG)))


# ── the manager ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_comparison_finds_what_differs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = await start(home)
    right = of(home, begun.world, header=begun.header)
    await right._compare()
    assert right._compared and (home / NAME).exists()

    assert begun.header is not None
    altered = made(1, vms=12)
    gone = next(one.position for one in altered if one.ref.kind == "vm" and one.headers["ce-id"].endswith(":1"))
    log = [one for one in altered if one.position != gone]
    wrong = of(home, begun.world, log, begun.header)
    for _ in range(2):
        with pytest.raises(snapshots.Differs):
            await wrong._compare()
    assert not (home / NAME).exists() and not wrong._is_due(), "no further snapshot is made of it"
    assert "differs" in capsys.readouterr().out


async def test_a_change_of_keys_is_followed_or_ends_it(home: Path) -> None:
    world = read(World(), LOG)
    made_ = of(home, world)
    assert made_._is_due()
    await made_._write()
    assert not made_._is_due()
    keyring.rotate(home / "event.keys")
    assert made_._is_due(), "a start would not use the file"
    await made_._write()
    assert not made_._is_due() and (await start(home)).header is not None
    keyring.retire(home / "event.keys", KEY.id, 3)
    assert made_._is_due()
    await made_._write()
    assert not (home / NAME).exists() and not made_._is_due()


async def test_a_key_that_comes_after_a_forged_event_ends_it(home: Path) -> None:
    world = read(World(), LOG)
    world.forged = True
    made_ = of(home, world)
    await made_._write()
    assert (begun := await start(home)).header is not None and of(home, begun.world, header=begun.header)
    assert begun.world.forged
    keyring.rotate(home / "event.keys")
    await made_._write()
    assert not (home / NAME).exists() and not made_._is_due()


async def test_malformed_messages_are_parked_first(tmp_path: Path) -> None:
    put_keys(tmp_path)
    world = read(World(), LOG)
    world.malformed.put(LOG[0], "it is wrong")
    await of(tmp_path, world)._write()
    assert not (tmp_path / NAME).exists()


async def test_a_failed_write_leaves_the_file_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (home / NAME).read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "put_in_place", full)
    with pytest.raises(OSError):
        await of(home, read(World(), LOG))._write()
    assert (home / NAME).read_bytes() == before
    assert {path.name for path in home.iterdir()} == {NAME, "event.keys"}


async def test_a_writer_that_is_cancelled_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (home / NAME).read_bytes()
    monkeypatch.setattr(snapshots, "WRITING", 0.0001)
    writing = asyncio.create_task(of(home, read(World(), LOG))._write())
    while len(list(home.iterdir())) < 3:
        await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait([writing], timeout=5)
    assert writing.cancelled()
    assert (home / NAME).read_bytes() == before and len(list(home.iterdir())) == 2


async def test_the_comparison_goes_on_after_the_log_was_away(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(Log):
        failures = 2

        async def read(self, after: int, filter_: str | None = None, limit: int = 512) -> list[Recorded]:
            if after and self.failures:
                self.failures -= 1
                raise Unavailable("away")
            return await super().read(after, filter_, 50)

    monkeypatch.setattr(snapshots, "AGAIN", 0.0)
    begun = await start(home)
    compared = of(home, begun.world, header=begun.header)
    compared.store = cast(EventStore, Away(LOG))
    await compared._compare()
    assert compared._compared and cast(Away, compared.store).failures == 0


async def test_the_file_of_a_killed_writer_is_removed_later(home: Path) -> None:
    old, new = home / f".{NAME}.1.a", home / f".{NAME}.2.b"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    await start(home)
    assert not old.exists() and new.exists()


def test_marks_are_thinned() -> None:
    marks: list[tuple[int, str]] = []
    for position in range(1, 1000):
        marks = thinned([*marks, (position, "")])
        assert len(marks) <= snapshots.MOST_MARKS and marks[-1][0] == position
        assert marks == sorted(set(marks))
    assert marks[0][0] == 1


def test_all_code_that_decides_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = code_digest()
    assert code == code_digest()
    for package in DECIDING:
        copy = tmp_path / package.__name__
        source = Path(package.__path__[0])
        for path in source.rglob("*.py"):
            (copy / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(source)).write_bytes(path.read_bytes())
        monkeypatch.setattr(package, "__path__", [str(copy)])
        code_digest.cache_clear()
        assert code_digest() == code
        changed = next(path for path in sorted(copy.rglob("*.py")) if path.name != "__init__.py")
        changed.write_text(changed.read_text() + "\n")
        code_digest.cache_clear()
        assert code_digest() != code
        monkeypatch.undo()
        code_digest.cache_clear()
