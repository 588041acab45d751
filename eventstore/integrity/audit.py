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
from eventstore.integrity.verify import Finding, Report, Verifier
from eventstore.log.envelope import Recorded
from eventstore.log.jetstream import Unavailable
from eventstore.log.macs import EventKeys
from eventstore.log.store import EventStore
from runtime import subjects
from runtime.bus.api import api

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
) -> Report:
    """Verify the log as it is now. The report has all findings.

    Without `keys`, signatures are not checked; without `event_keys`, MACs are not checked. `against`: an earlier
    archive of the same log to compare with. Raises Unavailable if the server does not answer, OSError if the archive
    cannot be read.
    """
    excluded = Excluded()
    async for _, checkpoint in Checkpoints(nc).valid():
        excluded.add(checkpoint, keys)
    store = EventStore(nc)
    verifier = Verifier(subjects.EVENTS, keys=keys, foreign=foreign, event_keys=event_keys, excluded=excluded)
    comparison = _Comparison(against, verifier.report) if against is not None else None
    if against is not None:
        for finding in verify_file(against, keys=keys, foreign=["*"], signed=False, event_keys=event_keys).findings:
            if finding.message:
                continue  # a malformed message of the log; if the log differs there, the comparison finds it
            verifier.report.add(Finding("archive", finding.position, f"{against}: {finding}", finding.aggregate))
    signed = _signed(Checkpoints(nc), verifier.report)
    upcoming = await anext(signed, None)
    last = await last_position(nc, verifier.report)
    async for page in pages(store, 0, last):
        for recorded in page:
            verifier.feed(recorded)
            if comparison is not None:
                comparison.feed(recorded)
            while upcoming is not None and upcoming.position <= verifier.at.position:
                verifier.check(upcoming)
                upcoming = await anext(signed, None)
        if progress is not None:
            progress(verifier.at.position, last)
    if verifier.at.position < last:
        detail = f"the server's last position is {last}, but it returns no event from here on"
        verifier.report.add(Finding("missing", verifier.at.position + 1, detail))
    if comparison is not None:
        comparison.end(verifier.at.position)
    while upcoming is not None and upcoming.position <= verifier.at.position:
        verifier.check(upcoming)
        upcoming = await anext(signed, None)
    if upcoming is not None:
        verifier.check(upcoming)  # it is after the end of the log: one finding is enough
    return verifier.end()


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


async def _signed(checkpoints: Checkpoints, report: Report) -> AsyncIterator[Checkpoint]:
    """The checkpoints as they are now. A finding is added for each missing one, and each message that is none."""
    until = await checkpoints.count()
    expected = 1
    async for number, recorded in checkpoints.read(0, until):
        if number != expected:
            report.add(Finding("checkpoint", 0, f"checkpoint {expected} is missing; the next is {number}"))
        expected = number + 1
        try:
            yield parsed(recorded)
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
