"""One run: a server, writers, feeds, and a killer."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from eventstore.log import jetstream
from eventstore.log.store import EventStore
from runtime import subjects
from runtime.bus import ordered
from runtime.bus.streams import ensure_all
from runtime.local.servers import NatsServer, start_nats
from runtime.tasks.tasks import end
from tests.chaos.check import Check, Violation, compare
from tests.chaos.feeds import Feed
from tests.chaos.ledger import Ledger
from tests.chaos.writers import Writer
from tests.eventstore.log import connection

LONGEST = 0.06
"""Seconds from the first acknowledgement of a restarted server to its end, at most."""
STALLED = 60.0
ANSWER = 0.15
"""Seconds after which an answer is given up on."""
ERA = 5
"""Kills after which writers turn to other shared aggregates, so that none gets long."""


@dataclass(frozen=True)
class Figures:
    """What a run came to. `unknown` counts sendings without an outcome, `found` appends that one of them had stored."""

    seed: int
    kills: int
    writers: int
    seconds: float
    events: int
    aggregates: int
    acknowledged: int
    refused: int
    unknown: int
    found: int
    repeated: int
    fed: dict[str, int]
    violations: list[Violation]

    def document(self) -> dict[str, Any]:
        return {"ok": not self.violations, **asdict(self), "violations": [str(v) for v in self.violations]}


@contextmanager
def impatient() -> Iterator[None]:
    """A server that went away is noticed at once: else most of a run would be waiting."""
    with (
        mock.patch.object(jetstream, "ANSWER_SECONDS", ANSWER),
        mock.patch.object(ordered, "HEARTBEAT", 0.1),
        mock.patch.object(ordered, "_FIRST_WAIT", 0.2),
    ):
        yield


async def run(
    home: Path, seed: int, kills: int, writers: int, progress: Callable[[str], None] = lambda _: None
) -> Figures:
    """Kill the server on `home` so many times under so many writers; then compare what it holds with its word."""
    started = time.monotonic()
    ledger = Ledger()
    with impatient():
        crew: list[Writer] = []
        tasks: list[asyncio.Task[None]] = []
        killer = _Killer(await start_nats(home), crew, tasks, ledger, random.Random(f"{seed} killer"))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(killer.stop)
            url = killer.server.url
            clients = [await stack.enter_async_context(connection(url)) for _ in range(4)]
            await ensure_all(clients[0].jetstream(), 1)
            stores = [EventStore(clients[0], timeout=60), EventStore(clients[1], timeout=ANSWER)]
            feeds = [
                Feed("whole", clients[2]),
                Feed("filtered", clients[3], [subjects.events("red"), subjects.events("blue", "project")]),
                Feed("resumed", clients[3], chance=random.Random(f"{seed} resumed")),
            ]
            for feed in feeds:
                stack.push_async_callback(feed.close)
            stack.push_async_callback(end, tasks)
            crew += [Writer(f"writer{n}", seed, stores, ledger) for n in range(writers)]
            tasks += [asyncio.create_task(writer.run()) for writer in crew]
            await killer.kill(kills, lambda done: progress(_line(done, kills, ledger, started)))
            for writer in crew:
                writer.over = True
            await asyncio.wait_for(asyncio.gather(*tasks), STALLED)
            check = Check(ledger)
            reader = EventStore(clients[0])
            while page := await reader.read(check.log[-1].position if check.log else 0):
                check.feed(page)
            violations = check.violations()
            for feed in feeds:
                log = [stands for stands in check.log if feed.wants(stands.subject)]
                await feed.reach(log[-1].position, STALLED)
                violations += compare(feed.name, feed.saw, log)
    return Figures(
        seed=seed,
        kills=kills,
        writers=writers,
        seconds=round(time.monotonic() - started, 1),
        events=len(check.log),
        aggregates=check.aggregates,
        acknowledged=ledger.acknowledged,
        refused=ledger.refused,
        unknown=ledger.unknown,
        found=ledger.found,
        repeated=ledger.repeated,
        fed={feed.name: len(feed.saw) for feed in feeds},
        violations=violations,
    )


class _Killer:
    """Ends the server as a crash would, and starts it again on the same data and port."""

    def __init__(
        self,
        server: NatsServer,
        crew: list[Writer],
        tasks: list[asyncio.Task[None]],
        ledger: Ledger,
        chance: random.Random,
    ) -> None:
        self.server = server
        self._crew = crew
        self._tasks = tasks
        self._ledger = ledger
        self._chance = chance

    async def stop(self) -> None:
        await self.server.stop()

    async def kill(self, kills: int, progress: Callable[[int], None]) -> None:
        said = time.monotonic()
        for done in range(kills):
            if self._chance.random() < 0.9:  # else it dies while clients come back
                await self._at_work()
            await asyncio.sleep(self._chance.uniform(0, LONGEST))
            await self.server.kill()
            self.server = await start_nats(self.server.home, port=self.server.port)
            for writer in self._crew:
                writer.era = done // ERA
            if time.monotonic() - said >= 5:
                said = time.monotonic()
                progress(done + 1)

    async def _at_work(self) -> None:
        """Until most writers have had an answer from the server that was started."""
        enough, deadline = self._ledger.answers + len(self._crew), time.monotonic() + STALLED
        while self._ledger.answers < enough:
            for task in self._tasks:
                if task.done():
                    await task
            if time.monotonic() > deadline:
                raise RuntimeError(f"almost nothing was acknowledged within {STALLED:.0f} s of a restart")
            await asyncio.sleep(0.001)


def _line(done: int, kills: int, ledger: Ledger, started: float) -> str:
    return (
        f"{time.monotonic() - started:4.0f} s  {done}/{kills} kills  {ledger.acknowledged} acknowledged  "
        f"{ledger.refused} refused  {ledger.unknown} unknown, {ledger.found} of them found stored"
    )
