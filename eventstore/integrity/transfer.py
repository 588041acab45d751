"""Export the log from its server into an archive, and restore an archive into an empty server.

A restored log has each event at its position, with the same subject, headers and body, so all digests, chains and
checkpoints stay valid. The server sets its own time of storing. So the restore adds the original time in the header
`Nebula-Stored-At`, which readers use as `stored_at`.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from eventstore.integrity import archive
from eventstore.integrity.archive import Writer, checkpoint_of, event_of, header_of, read_lines
from eventstore.integrity.audit import Progress
from eventstore.integrity.checkpoints import Checkpoint, Keys, LogDigest
from eventstore.integrity.notary import Checkpoints, Disagrees, pages
from eventstore.integrity.report import Report
from eventstore.log.envelope import Recorded
from eventstore.log.jetstream import Conflict, Unavailable, direct_get
from eventstore.log.judge import follows, shape
from eventstore.log.layout import STORED_AT
from eventstore.log.macs import EventKeys
from eventstore.log.store import EventStore
from runtime import subjects
from runtime.bus import streams
from runtime.bus.quick_client import publish_bytes

ADDED = 1024
"""Maximum number of bytes of the headers that a restore adds to a message."""
IN_FLIGHT = 256
"""Maximum number of publishes that wait for their acknowledgement. The server stores them in the order of sending."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export. `signed`: the last position that a checkpoint in the file covers."""

    first: int
    last: int
    events: int
    checkpoints: int
    signed: int
    digest: str


class Refused(Exception):
    """An export or a restore is refused, or was stopped. The text says why, and what to do."""


class Unsound(Refused):
    """The archive does not verify."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"the archive does not verify: {report.findings[0]}")
        self.report = report


async def export(
    nc: Client,
    file: BinaryIO,
    *,
    after: int = 0,
    to: int | None = None,
    progress: Progress | None = None,
    event_keys: EventKeys | None = None,
) -> Exported:
    """Write the log after position `after` up to `to` (default: its end now), with all checkpoints and anchors.

    If there is a later checkpoint, the range is extended to the first one, so that a signature covers all of it.
    `event_keys`: tells which messages before the range are events. Raises Refused if the range does not exist,
    Unavailable if the server does not answer.
    """
    store, checkpoints = EventStore(nc, event_keys), Checkpoints(nc)
    passed, count = await checkpoints.before(after), await checkpoints.count()
    last = await store.last_position()
    if after and (after >= last or (to is not None and to <= after)):
        raise Refused(
            f"there are no events between position {after} and {last if to is None else to}: the log ends at {last}"
        )
    if to is not None and to > last:
        raise Refused(f"there is no position {to}: the log ends at {last}")
    if to is None or to == last:
        to = last
    else:
        covering = await checkpoints.following(await checkpoints.before(to - 1))
        to = min(covering.position, last) if covering is not None else to
    before, _ = await checkpoints.newest(passed)
    start = await _digest_at(store, before, after)
    writer, seen, signed = Writer(file, start), set[str](), start.position
    upcoming = checkpoints.valid(passed, count)
    document = await anext(upcoming, None)
    async for page in pages(store, after, to):
        for anchor in await _anchors(nc, store, page, seen, after) if after else ():
            writer.anchor(anchor)
        for recorded in page:
            writer.event(recorded)
            while document is not None and (checkpoint := document[1]).position <= recorded.position:
                writer.checkpoint(checkpoint)
                signed = checkpoint.position
                document = await anext(upcoming, None)
        if progress is not None:
            progress(writer.at.position - after, to - after)
    writer.close()
    return Exported(start.position + 1, writer.at.position, writer.events, writer.checkpoints, signed, writer.at.digest)


async def _digest_at(store: EventStore, checkpoint: Checkpoint | None, position: int) -> LogDigest:
    """The digest of the log at a position, computed from an earlier checkpoint. It is checked by `verify` only."""
    at = checkpoint.at if checkpoint is not None else LogDigest()
    async for page in pages(store, at.position, position):
        for recorded in page:
            at = at.after(recorded)
    return at


async def _anchors(
    nc: Client, store: EventStore, page: Sequence[Recorded], seen: set[str], after: int
) -> list[Recorded]:
    """The last event up to position `after` of each aggregate that continues in this page for the first time."""
    first: dict[str, Recorded] = {}
    for recorded in page:
        if recorded.subject not in seen and shape(recorded) is None:
            first.setdefault(recorded.subject, recorded)
    seen.update(first)
    continued = sorted(subject for subject, recorded in first.items() if recorded.version > 1)
    found: list[Recorded] = []
    for last in await _last_of(nc, continued, after, store.event_keys):
        if shape(last) is None and follows(first[last.subject], last.version, last.digest) is None:
            found.append(last)
            continue
        history = await store.history(last.ref, at=after)  # malformed messages are between the two
        found += history[-1:]
    return sorted(found, key=lambda recorded: recorded.position)


async def _last_of(nc: Client, names: Sequence[str], up_to: int, event_keys: EventKeys | None) -> list[Recorded]:
    """The last event of each of these aggregates up to a position, in the order of the log."""
    if not names:
        return []
    ask = {"multi_last": list(names), "up_to_seq": up_to, "batch": len(names)}
    try:
        found, _ = await direct_get(nc, subjects.EVENTS, ask, 5.0, event_keys)
    except (NatsError, OSError, TimeoutError) as error:
        raise Unavailable(f"the log does not answer: {error!r}") from error
    return sorted(found, key=lambda recorded: recorded.position)


# ── restore ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def restore(
    nc: Client,
    path: Path,
    *,
    keys: Keys | None,
    foreign: Sequence[str] = ("*",),
    replicas: int = 1,
    resume: bool = False,
    progress: Progress | None = None,
    event_keys: EventKeys | None = None,
) -> Report:
    """Restore an archive of a whole log into a server with an empty log: same events, same positions.

    The archive is verified first. Malformed messages of the log are restored unchanged. `resume`: continue an
    interrupted restore; the server has to contain the beginning of the archive. No other process may append meanwhile;
    if one does, the restore is stopped. Raises Unsound, Refused, BadArchive, Unavailable.
    """
    report = archive.verify_file(path, keys=keys, foreign=foreign, signed=False, event_keys=event_keys)
    if not report.genuine:
        raise Unsound(report)
    if report.first != 1:
        raise Refused(
            f"the archive begins at position {report.first}: only an archive from position 1 on can be restored"
        )
    js = nc.jetstream()
    await streams.ensure(js, streams.events_stream(replicas))
    await streams.ensure(js, streams.checkpoints_stream(replicas))
    async with room(js):
        await _Restore(nc, path, resume, progress, report.last).run()
    return report


@contextlib.asynccontextmanager
async def room(js: JetStreamContext) -> AsyncIterator[None]:
    """Allow larger messages in the log inside the block, by the headers that a restore adds."""
    most = streams.events_stream(1).max_msg_size or 0
    config = (await js.stream_info(subjects.EVENTS)).config
    if (config.max_msg_size or -1) not in (most, most + ADDED):  # (the second one after an interrupted restore)
        yield
        return
    await js.update_stream(replace(config, max_msg_size=most + ADDED))
    try:
        yield
    finally:
        with contextlib.suppress(NatsError, OSError, TimeoutError):  # an error of the restore itself says more
            await js.update_stream(replace(config, max_msg_size=most))


class _Restore:
    def __init__(self, nc: Client, path: Path, resume: bool, progress: Progress | None, total: int) -> None:
        self._nc, self._path, self._resume = nc, path, resume
        self._store, self._checkpoints = EventStore(nc), Checkpoints(nc)
        self._progress, self._total = progress, total
        self._sent = self._acknowledged = 0

    async def run(self) -> None:
        have, signed = await self._store.last_position(), await self._checkpoints.count()
        if (have or signed) and not self._resume:
            raise Refused(
                f"the server already has {have} events and {signed} checkpoints: restore into an empty server, or "
                "continue an interrupted restore with --resume"
            )
        await self._compare(have)
        self._sent = self._acknowledged = have
        self._inbox = self._nc.new_inbox()
        self._acks = await self._nc.subscribe(self._inbox)
        try:
            await self._restore(have, signed)
        finally:
            await self._acks.unsubscribe()

    async def _restore(self, have: int, signed: int) -> None:
        number = 0
        with self._path.open("rb") as file:
            lines = read_lines(file)
            header_of(next(lines, None))
            for each in lines:
                document = each.document or {}
                match each.kind:
                    case "event" if (recorded := event_of(document)).position > have:
                        await self._send(recorded)
                    case "checkpoint":
                        number += 1
                        await self._sign(number, signed, checkpoint_of(document))
            await self._settle(0)

    async def _compare(self, have: int) -> None:
        """Raises Refused unless the events on the server are the first events of the archive."""
        if have > self._total:
            raise Refused(f"the server has {have} events, the archive only {self._total}: use an empty server")
        with self._path.open("rb") as file:
            expected = (event_of(e.document or {}) for e in read_lines(file) if e.kind == "event")
            async for page in pages(self._store, 0, have):
                for there in page:
                    mine = next(expected, None)
                    if mine is None or (mine.position, mine.digest) != (there.position, there.digest):
                        raise Refused(
                            f"the event at position {there.position} on the server is not that of the archive: use an "
                            "empty server"
                        )

    async def _send(self, recorded: Recorded) -> None:
        storing = {
            STORED_AT: recorded.stored_at.isoformat(),
            "Nats-Expected-Stream": subjects.EVENTS,
            "Nats-Expected-Last-Sequence": str(recorded.position - 1),
        }
        try:
            if recorded.raw is None:
                headers = {**recorded.headers, **storing}
                await self._nc.publish(recorded.subject, recorded.body, reply=self._inbox, headers=headers)
            else:
                original = recorded.raw.block.removesuffix(b"\r\n\r\n")
                ours = (
                    f"{k}: {v}".encode() for k, v in storing.items()
                )  # at the end: the last header of a name counts
                block = b"\r\n".join([original, *ours, b"", b""])
                await publish_bytes(self._nc, recorded.raw.subject, self._inbox, block, recorded.body)
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the log does not answer: {error!r}") from error
        self._sent = recorded.position
        if self._sent - self._acknowledged >= IN_FLIGHT:
            await self._settle(IN_FLIGHT // 2)
            if self._progress is not None:
                self._progress(self._acknowledged, self._total)

    async def _settle(self, left: int) -> None:
        """Wait for acknowledgements, which come in the order of sending, until only `left` are missing."""
        while self._sent - self._acknowledged > left:
            position = self._acknowledged + 1
            try:
                answer = json.loads((await self._acks.next_msg(timeout=30)).data)
            except (NatsError, OSError, TimeoutError) as error:
                raise Unavailable(f"the log does not answer at position {position}: {error!r}") from error
            if "error" in answer:
                raise Refused(f"position {position} was not stored: {answer['error'].get('description')}")
            if answer["seq"] != position:
                raise Refused(f"the event of position {position} was stored at {answer['seq']}")
            self._acknowledged = position

    async def _sign(self, number: int, have: int, checkpoint: Checkpoint) -> None:
        """Store the n-th checkpoint, after all messages before it are stored."""
        if number <= have:
            try:
                there = await self._checkpoints.number(number)
            except Disagrees:
                there = None
            if there != checkpoint:
                raise Refused(f"checkpoint {number} on the server is not that of the archive: use an empty server")
            return
        await self._settle(0)
        try:
            await self._checkpoints.append(checkpoint, number - 1)
        except Conflict as error:
            raise Refused(f"another process signed checkpoint {number}: stop all roles and restore again") from error
