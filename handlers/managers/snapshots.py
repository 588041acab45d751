"""Snapshots of the world: a start reads one, and the rest of the log after it, instead of the whole log.

- A start uses the file only if nothing of it is in doubt: its MAC, the version of the code, the event keys, and the
  digests of some messages of the log, among them the last one that it knows. Otherwise the reason is logged, the file
  is removed, and the whole log is read.
- After such a start the whole log is read again, slowly, up to the position of the snapshot. If that leads to another
  content, the file is removed, no further one is made, and this manager fails from then on, which `/healthz` shows.
- A snapshot is written after each `events` new events, by threads, from a copy that is made in one step.

Each handlers process does this for its own home (docs/decisions.md).
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from eventstore.log.keyring import Keyring
from eventstore.log.store import EventStore, Unavailable
from handlers.managers.driver import Driver
from handlers.world.contents import Contents, Restored, copied, messages
from handlers.world.snapshot_file import NAME, Doubtful, Header, Snapshot, Writer, code_digest, opened
from handlers.world.watch import Changes
from handlers.world.world import World
from runtime import logs

log = logs.get(__name__)

#: Maximum number of positions of the log whose digests a snapshot has.
MOST_MARKS = 16
#: Seconds between two looks.
PERIOD = 1.0
#: A thread that writes a snapshot works for at most this share of the time; so do snapshots in all.
WRITING, IN_ALL = 0.5, 0.05
#: Seconds after which the unfinished file of a process that was killed is removed.
LEFT_OVER = 3600.0
#: Seconds until the comparison reads again after the log was unavailable.
AGAIN = 5.0
#: Number of events that the comparison folds without a pause.
SLICE = 16


class Differs(Exception):
    """The log, read from the beginning, leads to another world than the snapshot that this process started with."""


@dataclass
class Begun:
    """The world of a process at its start, and the snapshot that it comes from, if any."""

    world: World
    header: Header | None = None


async def begin(home: Path, store: EventStore, keys: Keyring) -> Begun:
    """The world of the snapshot in the home, or an empty one, which has to read the whole log.

    Raises Unavailable, and as `Keyring.load`. `store`: any store of the log.
    """
    path, world = home / NAME, World()
    try:
        await asyncio.to_thread(remove_left_over, path)
        found = await asyncio.to_thread(opened, path, keys)
        if found is None:
            return Begun(world)
        with contextlib.closing(found):
            await check_log(found.header, store)
            restored = await restore(found, world)
    except (Doubtful, OSError) as error:
        log.warning("snapshot of the world not used; the whole log is read", reason=str(error))
    except (ValueError, LookupError, TypeError) as error:  # its MAC is right: a bug
        log.exception("snapshot of the world cannot be read; the whole log is read", error=repr(error))
    else:
        log.info("snapshot of the world read", position=restored.position)
        return Begun(restored, found.header)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    return Begun(World())


async def restore(found: Snapshot, world: World) -> World:
    """Fill the world. Raises Doubtful, OSError; any other error is a bug."""
    restored = Restored(world)
    for message in found.messages():
        restored.add(message)
        await asyncio.sleep(0)
    return restored.finish(found.header.position)


async def check_log(header: Header, store: EventStore) -> None:
    """Raises Doubtful unless the log has the messages that the snapshot names; Unavailable."""
    end = await store.last_position()
    if end < header.position:
        raise Doubtful(f"the log ends at {end}, and it is of position {header.position}")
    for position, digest in header.marks:
        read = await store.read(position - 1, limit=1)
        if not read or read[0].position != position:
            read = await store.between(position - 1, position)  # the replica that answered may lag
        if not read or read[0].position != position or read[0].digest != digest:
            raise Doubtful(f"the log has another message at {position} than it says")


def remove_left_over(path: Path) -> None:
    """Remove what writers left that were killed. Raises OSError."""
    for part in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > LEFT_OVER:
                part.unlink()


@dataclass
class Snapshots:
    """Writes snapshots of the world, and compares the one that this process started with.

    `events`: number of new events after which one is written. `share`: of a processor's time for the comparison.
    `stored`: stores the number of malformed messages that were only counted; may raise Unavailable.
    """

    home: Path
    store: EventStore
    keys: Keyring
    begun: Begun
    events: int
    share: float
    stored: Callable[[], Awaitable[None]]
    _marks: list[tuple[int, str]] = field(default_factory=list)
    _judges: str = ""
    _position: int = 0
    _stopped: bool = False
    _not_before: float = 0.0
    _compared: bool = True

    def __post_init__(self) -> None:
        header = self.begun.header
        if header is not None:
            self._marks = list(header.marks)
            self._judges, self._position = header.judges, header.position
            self.begun.world.forged = header.forged
            self._compared = False

    @property
    def path(self) -> Path:
        return self.home / NAME

    def driver(self, *, every: float = PERIOD) -> Driver:
        """It runs in each handlers process, because each has its own home. Both items take as long as they take."""
        return Driver("snapshots", self._look, period=every, item_seconds=None, everywhere=True)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        if not self._compared:
            driver.submit("comparison", self._compare)
        if self._is_due() and not driver.knows("write"):
            driver.submit("write", self._write)

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _is_due(self) -> bool:
        position = self.begun.world.position
        if self._stopped or position < self.events or self.begun.world.newest is None:
            return False
        if self.begun.world.newer:
            return False  # a start from the snapshot would not know that
        if not self._position:
            return True
        if self.keys.judges(self._position) != self._judges:
            return True
        return position - self._position >= self.events and time.monotonic() >= self._not_before

    async def _write(self) -> None:
        """Write a snapshot of the world as it is now. Raises OSError, Unavailable, CannotPack."""
        world = self.begun.world
        if self._position and not self._same_judgement():
            self._stop("the event keys have changed what counts as an event")
            return
        if not world.malformed.is_empty():
            return  # they are parked first: a start from the snapshot does not see them again
        key, secret = self.keys.secret()
        await world.settled()
        contents = copied(world)
        judges = self.keys.judges(contents.position)
        marks = thinned([*self._marks, (contents.position, contents.digest)])
        header = Header(
            code=code_digest(),
            judges=judges,
            key=key,
            position=contents.position,
            marks=tuple(marks),
            forged=world.forged,
        )
        await self.stored()
        started = time.monotonic()
        await write(contents, header, self.path, secret)
        took = time.monotonic() - started
        if self._stopped:  # the comparison has ended meanwhile
            self.path.unlink(missing_ok=True)
            return
        self._marks, self._judges, self._position = marks, judges, contents.position
        self._not_before = time.monotonic() + took * WRITING / IN_ALL
        log.info("snapshot of the world written", position=contents.position, seconds=round(took, 2))

    def _same_judgement(self) -> bool:
        """Whether the keys of now would have judged the messages so far as they were judged."""
        before, now = set(self._judges.split()), set(self.keys.judges(self._position).split())
        return before == now or (before < now and not self.begun.world.forged)

    def _stop(self, reason: str) -> None:
        self._stopped = True
        self.path.unlink(missing_ok=True)
        log.warning("no more snapshots of the world before the next start", reason=reason)

    # ── comparing ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _compare(self) -> None:
        """Compare the snapshot with the whole log. Raises Differs, each time once it was found; Unavailable."""
        header = self.begun.header
        assert header is not None
        if not self._stopped:
            other = await self._replayed(header.position)
            if self.keys.judges(header.position) != header.judges:  # it would be judged by others
                self._compared = True
                return
            content = await content_of(paced(copied(other), self.share))
            if content == header.content:
                self._compared = True
                log.info("snapshot of the world is what the log says", position=header.position)
                return
            self._stop("the snapshot differs from the log")
        raise Differs(
            f"the snapshot at position {header.position} differs from what the log says up to there: restart this "
            "process, which will read the whole log, and report this"
        )

    async def _replayed(self, position: int) -> World:
        """The world at a position, made of the whole log, slowly."""
        world, after = World(), 0
        while after < position:
            started = time.monotonic()
            try:
                page = [one for one in await self.store.read(after) if one.position <= position]
            except Unavailable:  # not again from the beginning, which may take hours
                await asyncio.sleep(AGAIN)
                continue
            if not page:
                raise Differs(f"the log has no message between {after} and {position}")
            for start in range(0, len(page), SLICE):
                for recorded in page[start : start + SLICE]:
                    world.take(recorded)
                await asyncio.sleep((time.monotonic() - started) * (1 / self.share - 1))
                started = time.monotonic()
            world.newest, after = page[-1], page[-1].position
            world.position = after
        return world


async def paced(contents: Contents, share: float) -> AsyncIterator[bytes]:
    """The messages of a copy, each made by a thread. Between two of them it pauses, so that it works for this share of
    the time.
    """
    made = messages(contents)
    while True:
        started = time.monotonic()
        message = await asyncio.to_thread(next, made, None)
        if message is None:
            return
        yield message
        await asyncio.sleep((time.monotonic() - started) * (1 / share - 1))


async def write(contents: Contents, header: Header, path: Path, secret: bytes) -> None:
    """Write a snapshot, for at most a part of the time. Raises OSError, CannotPack."""
    writer = Writer(path, secret)
    try:
        async for message in paced(contents, WRITING):
            await asyncio.to_thread(writer.add, message)
        await asyncio.to_thread(writer.finish, header)
    finally:
        writer.abandon()


async def content_of(made: AsyncIterator[bytes]) -> str:
    """The same digest as in the header of a snapshot with these messages."""
    found = hashlib.sha256()
    async for message in made:
        found.update(message)
    return found.hexdigest()


def thinned(marks: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """At most MOST_MARKS of the marks: of those that are old every other one is left out."""
    while len(marks) > MOST_MARKS:
        marks = [*marks[: MOST_MARKS // 2 : 2], *marks[MOST_MARKS // 2 :]]
    return marks
