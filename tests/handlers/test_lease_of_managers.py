"""Of several handlers processes one at a time holds the lease of the managers, and its managers work."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from eventstore.documents import Documents
from eventstore.log.store import Unavailable
from handlers.managers import lease as module
from handlers.managers.driver import Driver
from handlers.managers.lease import HOLDS, LEAVES, TAKES, Lease, Note, read
from handlers.world.watch import Changes, Watch
from runtime import process, subjects
from runtime.bus.quick_client import QuickClient
from runtime.bus.streams import ensure_all
from runtime.local.servers import NatsServer
from runtime.process import Process, has_ended, this
from runtime.tasks.tasks import end
from tests.waiting import eventually


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def elsewhere() -> Process:
    """A process of another host: nobody here can tell whether it has ended."""
    return this().model_copy(update={"id": uuid.uuid4().hex, "boot": "another"})


@pytest.fixture
async def documents(nats_server: NatsServer) -> AsyncIterator[Documents]:
    nc = QuickClient()
    await nc.connect(nats_server.url)
    await ensure_all(nc.jetstream(), 1)
    found = Documents(nc, subjects.MANAGERS)
    await found.drop(subjects.MANAGERS_LEASE)
    yield found
    await found.drop(subjects.MANAGERS_LEASE)
    await nc.close()


def lease(documents: Documents, time: Time, who: Process | None = None) -> Lease:
    return Lease(documents, who or elsewhere(), clock=time)


# ── the lease ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_one_of_two_holds_it_for_as_long_as_it_renews(documents: Documents) -> None:
    time = Time()
    one, other = lease(documents, time), lease(documents, time)
    for _ in range(20):
        await one.step()
        await other.step()
        assert (one.held, other.held) == (True, False)
        assert other.holder is not None and one.holder is not None
        assert other.holder.id == one.holder.id
        time.now += HOLDS - 1


async def test_a_holder_stops_before_another_one_may_take_over(documents: Documents) -> None:
    """Whenever the other one looks: never do both hold it."""
    time = Time()
    one, other = lease(documents, time), lease(documents, time)
    await one.step()
    for tenth in range(1, int(TAKES + HOLDS) * 10):
        await other.step()
        assert not (one.held and other.held), f"both after {tenth / 10} s"
        time.now += 0.1
    assert other.held
    await one.step()
    assert (one.held, other.held) == (False, True)


async def test_clocks_of_two_hosts_are_never_compared(documents: Documents) -> None:
    ours, theirs = Time(), Time()
    theirs.now = 9e9
    one, other = lease(documents, ours), lease(documents, theirs)
    await one.step()
    await other.step()
    assert (one.held, other.held) == (True, False)
    theirs.now += TAKES
    await one.step()  # it has renewed
    await other.step()
    assert (one.held, other.held) == (True, False)
    theirs.now += TAKES
    await other.step()
    assert other.held


async def test_a_renewal_counts_from_its_beginning(documents: Documents) -> None:
    time = Time()
    put = documents.put

    async def slow(*given: object, **more: object) -> int:
        position = await put(*given, **more)  # type: ignore[arg-type]
        time.now += HOLDS
        return position

    documents.put = slow  # type: ignore[method-assign]
    one = lease(documents, time)
    await one.step()
    assert not one.held


async def test_one_that_could_not_renew_goes_on_where_nobody_took_it(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time()
    one, other = lease(documents, time), lease(documents, time)
    await one.step()
    await other.step()

    async def away(*_: object, **__: object) -> int:
        raise Unavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(documents, "put", away)
        time.now += HOLDS
        with pytest.raises(Unavailable):
            await one.step()
    assert not one.held
    await one.step()
    assert one.held
    time.now += TAKES - HOLDS
    await other.step()
    assert not other.held


async def test_an_answer_that_got_lost_is_found_in_the_stream(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time()
    one = lease(documents, time)
    await one.step()
    put = documents.put

    async def stored_but_not_answered(*given: object, **more: object) -> int:
        await put(*given, **more)  # type: ignore[arg-type]
        raise Unavailable("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(documents, "put", stored_but_not_answered)
        with pytest.raises(Unavailable):
            await one.step()
    time.now += HOLDS
    await one.step()
    assert one.held


async def test_what_was_given_back_is_taken_without_a_wait(documents: Documents) -> None:
    time = Time()
    one, other = lease(documents, time), lease(documents, time)
    await one.step()
    await other.step()
    await other.give_back()  # what it has not
    await one.step()
    assert one.held
    await other.step()
    await one.give_back()
    await other.step()
    assert (one.held, other.held) == (False, True)
    await one.give_back()  # not its own any more
    await other.step()
    assert other.held


async def test_a_process_that_does_not_know_all_events_leaves_it_to_others(documents: Documents) -> None:
    time, outdated = Time(), False
    one = Lease(documents, elsewhere(), clock=time, outdated=lambda: outdated)
    other = lease(documents, time)
    for each in (one, other):
        await each.step()
    outdated = True
    for seconds in range(int(TAKES)):
        await one.step()
        await other.step()
        assert (one.held, other.held) == (False, False), seconds
        time.now += 1
    await other.step()
    await one.step()
    assert (one.held, other.held) == (False, True)
    await other.give_back()  # and nobody else is there
    await one.step()
    assert not one.held
    time.now += LEAVES
    await one.step()
    assert one.held
    time.now += 1
    await one.step()
    assert one.held, "it goes on, as nobody else works"


async def test_a_process_that_has_ended_on_this_host_is_not_waited_for(documents: Documents) -> None:
    time = Time()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # noqa: ASYNC220
    try:
        theirs = child_of(child.pid)
        one, other = lease(documents, time, theirs), lease(documents, time, this())
        await one.step()
        os.kill(child.pid, signal.SIGSTOP)
        await other.step()
        assert not other.held, "one that stands still has not ended"
    finally:
        child.kill()
    await eventually(lambda: has_ended(theirs), "it is seen that it has ended, though nobody waited for it")
    await other.step()
    assert other.held
    child.wait()
    assert has_ended(theirs)


def child_of(pid: int) -> Process:
    state = process._state(pid)
    assert state is not None
    return this().model_copy(update={"id": uuid.uuid4().hex, "pid": pid, "began": state[1]})


def test_whether_a_process_has_ended_is_known_of_this_host_alone() -> None:
    mine = this()
    assert not has_ended(mine)
    assert has_ended(mine.model_copy(update={"began": mine.began + 1})), "its number was handed out again"
    for place in ({"boot": "x"}, {"namespace": "x"}):
        assert not has_ended(mine.model_copy(update={"began": 1, **place}))


NONSENSE = [b"", b"hi", b"[]", b"{}", b"[" * 5000, b'{"holder": {"id": 1}}', b"\xff\xfe"]


@pytest.mark.parametrize("body", NONSENSE, ids=range(len(NONSENSE)))
async def test_a_document_that_makes_no_sense_is_replaced_once_it_stands_still(
    documents: Documents, body: bytes
) -> None:
    assert read(body) is None
    time = Time()
    await documents.put(subjects.MANAGERS_LEASE, body, last=0)
    one = lease(documents, time)
    await one.step()
    assert (one.held, one.holder) == (False, None)
    time.now += TAKES
    await one.step()
    assert one.held


async def test_of_many_that_take_it_at_the_same_moment_one_gets_it(documents: Documents) -> None:
    time = Time()
    all_ = [lease(documents, time) for _ in range(8)]
    await asyncio.gather(*(each.step() for each in all_))
    assert [each.held for each in all_].count(True) == 1


async def test_a_document_that_somebody_removed_is_made_again(documents: Documents) -> None:
    time = Time()
    one = lease(documents, time)
    await one.step()
    await documents.drop(subjects.MANAGERS_LEASE)
    await one.step()
    await one.step()
    assert one.held


# ── the driver with a lease ─────────────────────────────────────────────────────────────────────────────────────────


class Worker:
    """A manager with one item, which never ends."""

    def __init__(self, *, everywhere: bool = False) -> None:
        self.looks: list[Changes] = []
        self.running = 0
        self.watch = Watch()
        self.driver = Driver("worker", self._look, watch=self.watch, everywhere=everywhere)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        self.looks.append(changes)
        driver.submit("one", self._work)

    async def _work(self) -> None:
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1


async def test_a_manager_works_while_the_lease_is_held_and_looks_at_everything_each_time(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.01)
    time = Time()
    worker, mine = Worker(), lease(documents, time)
    task = asyncio.create_task(worker.driver.run(mine))
    try:
        for tenure in (1, 2, 3):
            worker.watch.ring()
            await asyncio.sleep(0)
            assert (len(worker.looks), worker.running, worker.driver.status().works) == (tenure - 1, 0, False)
            await mine.step()
            await eventually(lambda: worker.running, "it works")
            assert worker.driver.status().works
            assert len(worker.looks) == tenure
            assert worker.looks[-1].everything
            time.now += HOLDS
            if tenure == 2:  # it is gained anew before anybody noticed
                await mine.step()
                await eventually(lambda: len(worker.looks) == 3, "it looks again")
                time.now += HOLDS
                worker.looks.pop()
            worker.watch.ring()
            await eventually(lambda: not worker.driver.known(), "all of it has ended")
            assert worker.running == 0
    finally:
        await end([task])


async def test_nothing_begins_once_the_time_is_over_whoever_notices_first(documents: Documents) -> None:
    """A process that stood still goes on in the middle of something, before any timer has told it."""
    time = Time()
    mine = lease(documents, time)
    await mine.step()
    worker = Worker()
    worker.driver._lease = mine
    time.now += HOLDS
    await worker.driver.round(Changes(frozenset(), everything=True))
    await asyncio.sleep(0)
    assert worker.running == 0
    await worker.driver.close()


async def test_a_lease_that_cannot_be_had_shows_as_a_failure_of_its_managers(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWS", 0.01)
    mine = lease(documents, Time())
    worker = Worker()
    tasks = [asyncio.create_task(mine.keep()), asyncio.create_task(worker.driver.run(mine))]

    async def away(*_: object) -> list[Any]:
        raise Unavailable("away")

    try:
        with monkeypatch.context() as patched:
            patched.setattr(documents, "all", away)
            await eventually(lambda: worker.driver.status().failing_since, "it fails")
            assert "away" in (worker.driver.status().last_error or "")
        await eventually(lambda: worker.running, "it works")
        assert worker.driver.status().failing_since is None
    finally:
        await end(tasks)


async def test_a_manager_of_every_process_works_without_the_lease(documents: Documents) -> None:
    worker = Worker(everywhere=True)
    task = asyncio.create_task(worker.driver.run(lease(documents, Time())))
    try:
        await eventually(lambda: worker.running, "it works")
    finally:
        await end([task])


def test_one_that_stands_by_keeps_no_list_of_what_changed() -> None:
    from eventstore.log.envelope import Ref

    watch = Watch()
    watch.add(Ref("p", "vm", "v"))
    assert not watch._changed


def test_a_note_survives_the_way_over_the_bus() -> None:
    note = Note(holder=this())
    assert read(note.model_dump_json().encode()) == note
