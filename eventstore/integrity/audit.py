"""Reads the whole log from its server and verifies it: chains, versions, positions, types, checkpoints.

A log that was restored from an older copy and then continued is consistent in itself. It is detected by data that are
stored elsewhere: the checkpoints, and an archive to compare with (`against`).
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from nats.aio.client import Client
from nats.errors import Error as NatsError

from eventstore.integrity.archive import event_of, header_of, read_lines, verify_file
from eventstore.integrity.checkpoints import Checkpoint, Keys
from eventstore.integrity.excluded import Excluded
from eventstore.integrity.notary import Checkpoints, Disagrees, pages, parsed
from eventstore.integrity.ranges import Ranges
from eventstore.integrity.report import Finding, Report
from eventstore.integrity.sound import Sound
from eventstore.integrity.verified import Doubt, Kept, Verified
from eventstore.integrity.verify import Verifier
from eventstore.log.envelope import Recorded
from eventstore.log.jetstream import Unavailable
from eventstore.log.macs import EventKeys
from eventstore.log.store import EventStore
from runtime import logs, subjects
from runtime.bus.api import api
from runtime.bus.quick_client import QuickClient

log = logs.get(__name__)

MOST_SKIPPED = 64
"""Ranges that are read message by message at most, before the next try to read them as a whole."""
Progress = Callable[[int, int], None]
"""Called with the progress: the number of positions that are done, and of all positions."""


async def verify_log(
    nc: Client,
    *,
    keys: Keys | None,
    foreign: Sequence[str] = (),
    against: Path | None = None,
    progress: Progress | None = None,
    event_keys: EventKeys | None = None,
    kept: Kept | None = None,
    everything: bool = True,
) -> Report:
    """Verify the log as it is now. The report has all findings.

    Without `keys`, signatures are not checked; without `event_keys`, MACs are not checked. `against`: an earlier
    archive of the same log to compare with. `kept`: where the state at the last checkpoint is kept; unless
    `everything` is read, it is also used. Raises Unavailable if the server does not answer, OSError if the archive
    cannot be read.
    """
    excluded, checkpoints = Excluded(), Checkpoints(nc)
    if event_keys is None:
        async for _, checkpoint in checkpoints.valid():
            excluded.add(checkpoint, keys)
    verifier = Verifier(subjects.EVENTS, keys=keys, foreign=foreign, event_keys=event_keys, excluded=excluded)
    comparison = _Comparison(against, verifier.report) if against is not None else None
    if against is not None:
        for finding in verify_file(against, keys=keys, foreign=["*"], signed=False, event_keys=event_keys).findings:
            if finding.message:
                continue  # a malformed message of the log; if the log differs there, the comparison finds it
            verifier.report.add(Finding("archive", finding.position, f"{against}: {finding}", finding.aggregate))
    until = await checkpoints.count()  # before the end of the log: each of these is of a position that exists
    last = await last_position(nc, verifier.report)
    before = None
    if kept is not None and not everything and against is None:
        try:
            before = await kept.load(EventStore(nc, event_keys), checkpoints, last)
        except Doubt as doubt:
            verifier.report.doubt = str(doubt)
    if before is not None:
        verifier.resume(before)
    newest = (await checkpoints.newest(until, keys))[0] if keys is not None else None
    signed = Signed(checkpoints, verifier, before.number if before else 0, until, newest)
    await signed.begin()
    reading = Reading(nc, verifier, signed, last, comparison, progress)
    if isinstance(nc, QuickClient) and comparison is None:
        async with Ranges(nc, event_keys, foreign, last - verifier.at.position) as ranges:
            if newest is not None:
                await reading.quickly(ranges, min(last, newest.position))  # its state is that after a whole range
            await reading.quickly(ranges, last)
    else:
        await reading.slowly(last)
    if verifier.at.position < last:
        detail = f"the server's last position is {last}, but it returns no event from here on"
        verifier.report.add(Finding("missing", verifier.at.position + 1, detail))
    if comparison is not None:
        comparison.end(verifier.at.position)
    await signed.end()
    report = verifier.end()
    if kept is not None:
        keep(kept, report, signed.state)
    return report


def keep(kept: Kept, report: Report, state: Verified | None) -> None:
    """Keep the state for the next verification; nothing if something is wrong with the log."""
    try:
        if not report.genuine:
            kept.remove()
        elif state is not None:
            kept.save(state)
    except OSError as error:
        log.warning("the state of the verification was not kept: the next one reads the whole log", error=str(error))


class Reading:
    """Feeds the log to a verifier: ranges in which everything is right as a whole, and others message by message."""

    def __init__(
        self,
        nc: Client,
        verifier: Verifier,
        signed: "Signed",
        last: int,
        comparison: "_Comparison | None",
        progress: Progress | None,
    ) -> None:
        self._store = EventStore(nc)
        self._verifier = verifier
        self._signed = signed
        self._last = last
        self._comparison = comparison
        self._progress = progress

    async def quickly(self, ranges: Ranges, to: int) -> None:
        """Read up to a position, or a little further.

        If one range after the other is not sound, ever more are read message by message before the next try.
        """
        skip, before = 1, -1
        while self._verifier.at.position < to and self._verifier.at.position > before:
            before = self._verifier.at.position
            async for sound in ranges.sound(before, to):
                if not self._verifier.fits(sound):
                    break
                await self._take(sound)
                skip = 1
            if self._verifier.at.position < to:
                await self.slowly(min(to, self._verifier.at.position + skip * ranges.size))
                skip = min(2 * skip, MOST_SKIPPED)

    async def _take(self, sound: Sound) -> None:
        self._verifier.take(sound)
        while (upcoming := self._signed.position) is not None and upcoming <= sound.last:
            self._verifier.advance(sound, max(upcoming, self._verifier.at.position))
            await self._signed.check()
        self._verifier.advance(sound, sound.last)
        self._report()

    async def slowly(self, to: int) -> None:
        """Read message by message, up to a position or the first message after it."""
        async for page in pages(self._store, self._verifier.at.position, self._last):
            for recorded in page:
                self._verifier.feed(recorded)
                if self._comparison is not None:
                    self._comparison.feed(recorded)
                await self._signed.reached()
            self._report()
            if self._verifier.at.position >= to:
                return

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self._verifier.at.position, self._last)


class Signed:
    """The checkpoints after the first `after` messages, each given to the verifier when the log has reached its
    position. `state`: that of the verifier at the newest one.
    """

    def __init__(
        self, checkpoints: Checkpoints, verifier: Verifier, after: int, until: int, newest: Checkpoint | None
    ) -> None:
        self._verifier = verifier
        self._all = _signed(checkpoints, verifier.report, after, until)
        self._next: tuple[int, Checkpoint] | None = None
        self._newest = newest
        self.state: Verified | None = None

    async def begin(self) -> None:
        self._next = await anext(self._all, None)

    @property
    def position(self) -> int | None:
        """The position of the next checkpoint."""
        return None if self._next is None else self._next[1].position

    async def check(self) -> None:
        """Give the next one to the verifier."""
        assert self._next is not None
        number, checkpoint = self._next
        self._verifier.check(checkpoint)
        if checkpoint == self._newest and self._verifier.at.position == checkpoint.position:
            self.state = self._verifier.reached(number, checkpoint)
        self._next = await anext(self._all, None)

    async def reached(self) -> None:
        """Give all that are up to the verifier's position."""
        while self._next is not None and self._next[1].position <= self._verifier.at.position:
            await self.check()

    async def end(self) -> None:
        """The end of the log. Of those after it, one finding is enough."""
        await self.reached()
        if self._next is not None:
            self._verifier.check(self._next[1])


async def last_position(nc: Client, report: Report) -> int:
    """The position of the newest event. If the server counts deleted events, a finding is added."""
    try:
        reply = await nc.request(api(nc, f"STREAM.INFO.{subjects.EVENTS}"), b"", timeout=5)
    except (NatsError, OSError, TimeoutError) as error:
        raise Unavailable(f"the log does not answer: {error!r}") from error
    answer = json.loads(reply.data)
    if "error" in answer:
        raise Unavailable(f"the log does not answer: {answer['error'].get('description')}")
    state, config = answer["state"], answer["config"]
    if state.get("num_deleted"):
        report.add(Finding("missing", state["first_seq"], f"the server counts {state['num_deleted']} deleted events"))
    for promise in ("deny_delete", "deny_purge"):
        if not config.get(promise):
            report.add(Finding("stream", 0, f"the stream {subjects.EVENTS} lacks {promise}: events could be removed"))
    return int(state["last_seq"])


async def _signed(
    checkpoints: Checkpoints, report: Report, after: int, until: int
) -> AsyncIterator[tuple[int, Checkpoint]]:
    """The checkpoints after the first `after` messages, with the numbers of theirs. A finding is added for each missing
    one, and each message that is none.
    """
    expected = after + 1
    async for number, recorded in checkpoints.read(after, until):
        if number != expected:
            report.add(Finding("checkpoint", 0, f"checkpoint {expected} is missing; the next is {number}"))
        expected = number + 1
        try:
            yield number, parsed(recorded)
        except Disagrees as error:
            report.add(Finding("checkpoint", 0, str(error)))


class _Comparison:
    """Compares an archive with the log, and adds a finding where they begin to differ."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path, self._report = path, report
        self._after = 0
        self._events = self._read()
        self._next = next(self._events, None)
        self._differs = False

    def feed(self, recorded: Recorded) -> None:
        while self._next is not None and self._next.position < recorded.position:
            self._next = next(self._events, None)
        if self._differs or self._next is None or self._next.position != recorded.position:
            return
        if self._next.digest != recorded.digest:
            self._differs = True
            detail = f"from here on the log differs from {self._path}, which has {self._next.id} here"
            self._report.add(Finding("forked", recorded.position, detail, recorded.subject))

    def end(self, last: int) -> None:
        furthest = last
        while self._next is not None:
            furthest, self._next = max(furthest, self._next.position), next(self._events, None)
        if furthest > last:
            detail = f"the log ends here; {self._path} has events up to position {furthest}"
            self._report.add(Finding("truncated", last, detail))

    def _read(self) -> Iterator[Recorded]:
        with self._path.open("rb") as file:
            lines = read_lines(file)
            header_of(next(lines, None))
            for each in lines:
                if each.intact and each.kind == "event":
                    yield event_of(each.document or {})
