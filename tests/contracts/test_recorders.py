"""What the library's contracts do not ask: who conflicts, what stands on the stream, what can be read."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, ClassVar
from uuid import UUID, uuid4

import nats
import pytest
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError, InterfaceError, StoredEvent, Tracking
from eventsourcing.system import NotificationLogReader

from eventstore.library import stored_events
from eventstore.library.recorder import JetStreamApplicationRecorder, JetStreamProcessRecorder
from eventstore.log import jetstream
from eventstore.log.envelope import GENESIS, Recorded
from eventstore.log.jetstream import Stream
from tests.contracts import events
from tests.contracts.conftest import MakeFactory
from tests.contracts.events import history


@pytest.fixture
def recorder(make_factory: MakeFactory) -> Any:
    return make_factory().application_recorder()


@pytest.fixture
def other(make_factory: MakeFactory) -> Any:
    """Another process of the same application."""
    return make_factory().application_recorder()


async def on_the_stream(environment: dict[str, str]) -> list[Recorded]:
    client = await nats.connect(environment["NATS_URL"])
    try:
        return await Stream(client, environment["NATS_STREAM"]).read(0, environment["NATS_SUBJECT_PREFIX"] + ".>")
    finally:
        await client.close()


# ── write ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_conflict_in_a_batch_names_the_aggregate_and_stores_nothing(recorder: Any, other: Any) -> None:
    quiet, busy = uuid4(), uuid4()
    recorder.insert_events(history(quiet, 1, 1) + history(busy, 1, 1))
    other.insert_events(history(busy, 2, 2))
    with pytest.raises(IntegrityError, match=str(busy)):
        recorder.insert_events(history(quiet, 2, 2) + history(busy, 2, 3))
    assert recorder.max_notification_id() == 3
    assert recorder.insert_events(history(quiet, 2, 2)) == [4]  # what was refused took no id


def test_what_others_wrote_is_built_upon(recorder: Any, other: Any) -> None:
    some = uuid4()
    recorder.insert_events(history(some, 1, 1))
    other.insert_events(history(some, 2, 3))
    recorder.insert_events(history(some, 4, 4))
    other.insert_events(history(some, 5, 5))
    assert recorder.select_events(some) == history(some, 1, 5)


def test_an_aggregate_may_begin_with_version_0_and_be_known_to_one_writer_only(recorder: Any, other: Any) -> None:
    some = uuid4()
    recorder.insert_events(history(some, 0, 0))
    other.insert_events(history(some, 1, 1))
    assert other.select_events(some) == history(some, 0, 1)


@pytest.mark.parametrize("versions", [[3], [2, 4], [4, 3]])
def test_a_version_that_jumps_is_refused(recorder: Any, versions: Sequence[int]) -> None:
    some = uuid4()
    recorder.insert_events(history(some, 1, 1))
    with pytest.raises(IntegrityError, match=r"does not follow \d: \d has to be next"):
        recorder.insert_events([events.event(some, version) for version in versions])
    with pytest.raises(IntegrityError, match="begins with version 0 or 1"):
        recorder.insert_events([events.event(uuid4(), 2)])
    assert recorder.max_notification_id() == 1


def test_more_writers_at_once_than_the_server_takes_batches(recorder: Any) -> None:
    with ThreadPoolExecutor(120) as pool:
        stored = list(pool.map(lambda _: recorder.insert_events(history(uuid4(), 1, 5)), range(240)))
    assert sorted(number for numbers in stored for number in numbers) == list(range(1, 1201))


def test_one_of_many_who_write_the_same_version_wins(recorder: Any, other: Any) -> None:
    some = uuid4()

    def write(number: int) -> bool:
        try:
            (recorder, other)[number % 2].insert_events([events.event(some, 1, str(number).encode())])
        except IntegrityError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(write, range(40))) == 1
    assert len(recorder.select_events(some)) == 1


# ── what stands there ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_records_are_cloud_events_chained_per_aggregate(recorder: Any, environment: dict[str, str]) -> None:
    some = uuid4()
    recorder.insert_events(history(some, 1, 2))
    recorder.insert_events(history(some, 3, 3))
    first, second, third = await on_the_stream(environment)
    assert first.subject == f"{environment['NATS_SUBJECT_PREFIX']}.events.{some}"
    assert (first.id, first.type, first.version, first.body) == (f"{some}:1", "topic", 1, b"1")
    assert first.headers["ce-specversion"] == "1.0"
    assert first.headers["ce-source"] == f"/{environment['NATS_SUBJECT_PREFIX']}/events"
    assert [r.previous for r in (first, second, third)] == [GENESIS, first.digest, second.digest]


@pytest.mark.parametrize("topic", ["module:Class.Event", " spaces ", "Ärger:€", 'a"b%c', "line\r\nbreak: x", "%41"])
def test_any_topic_comes_back_as_it_was(recorder: Any, topic: str) -> None:
    recorder.insert_events([events.event(uuid4(), 1, topic=topic)])
    assert [n.topic for n in recorder.select_notifications(1, 10, topics=[topic])] == [topic]


def test_ids_come_back_as_what_they_were(recorder: Any) -> None:
    ids: list[UUID | str] = [uuid4(), "account-1", "user:7/a@b", str(uuid4())]
    for some in ids:
        recorder.insert_events([events.event(some, 1)])
        assert [e.originator_id for e in recorder.select_events(some)] == [some]
    assert [n.originator_id for n in recorder.select_notifications(1, 10)] == ids


@pytest.mark.parametrize("state", [b"", b"\x00\xff\r\n", b"x" * 900_000], ids=["empty", "binary", "large"])
def test_any_state_comes_back_as_it_was(recorder: Any, other: Any, state: bytes) -> None:
    some = uuid4()
    recorder.insert_events([events.event(some, 1, state)])
    other.insert_events([events.event(some, 2, state)])  # reads the tip first
    assert [e.state for e in recorder.select_events(some)] == [state, state]


# ── read ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["events", "snapshots"])
def test_every_range_of_a_long_history(make_factory: MakeFactory, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The same as filtering all, also where the recorder has to find its place in the log first."""
    monkeypatch.setattr(jetstream, "PAGE", 8)
    monkeypatch.setattr(stored_events, "PAGE", 8)
    monkeypatch.setattr(stored_events, "NEAR", 3)
    recorder = make_factory().aggregate_recorder(kind)
    long, short = uuid4(), uuid4()
    for round_ in range(5):
        others = (1, 2, 3, 63, 64, 65)  # unevenly spread
        recorder.insert_events(history(short, others[round_], others[round_ + 1] - 1))
        recorder.insert_events(history(long, 10 * round_ + 1, 10 * round_ + 10))
    everything = history(long, 1, 50)
    ranges = product((None, 0, 1, 7, 8, 9, 30, 49, 50, 70), (None, 1, 20, 50, 60), (None, 1, 12), (False, True))
    for gt, lte, limit, desc in ranges:
        expected = [
            e
            for e in everything
            if (gt is None or e.originator_version > gt) and (lte is None or e.originator_version <= lte)
        ]
        expected = (expected[::-1] if desc else expected)[:limit]
        for reader in (recorder, make_factory().aggregate_recorder(kind) if gt in (30, 50) else recorder):
            found = reader.select_events(long, gt=gt, lte=lte, desc=desc, limit=limit)
            assert found == expected, (gt, lte, limit, desc)


def test_notifications_behind_many_that_are_not_wanted(recorder: Any) -> None:
    recorder.insert_events(history(uuid4(), 1, 700))
    recorder.insert_events([events.event(uuid4(), 1, topic="rare")])
    recorder.insert_events(history(uuid4(), 1, 700))
    assert [n.id for n in recorder.select_notifications(1, 10, topics=["rare"])] == [701]
    assert [n.id for n in recorder.select_notifications(1, 2000)] == list(range(1, 1402))
    assert [n.id for n in recorder.select_notifications(600, 2000, stop=1300)] == list(range(600, 1301))


# ── snapshots ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_snapshot_of_an_earlier_version_may_come_later(make_factory: MakeFactory) -> None:
    recorder = make_factory().aggregate_recorder("snapshots")
    reader = make_factory().aggregate_recorder("snapshots")
    some = uuid4()
    for version in (20, 10, 30, 5, 15):
        recorder.insert_events([events.event(some, version)])
        taken = recorder.select_events(some)
        assert taken == sorted(taken, key=lambda e: e.originator_version)
        assert reader.select_events(some, desc=True, limit=1) == taken[-1:]
    assert [e.originator_version for e in reader.select_events(some, desc=True, lte=18, limit=1)] == [15]
    for version in (30, 15, 10):
        with pytest.raises(IntegrityError, match=f"version {version} .* stored already"):
            recorder.insert_events([events.event(some, version)])


class Counter(Aggregate):
    def __init__(self) -> None:
        self.count = 0

    @event("Counted")
    def add(self) -> None:
        self.count += 1


class Counters(Application[UUID]):
    snapshotting_intervals: ClassVar[dict[Any, int]] = {Counter: 5}


def test_an_application_lives_on_in_another_process(environment: dict[str, str]) -> None:
    with Counters(environment) as application:
        counter = Counter()
        for _ in range(12):
            counter.add()
            application.save(counter)
        assert application.snapshots is not None
        assert [s.originator_version for s in application.snapshots.get(counter.id)] == [5, 10]
    with Counters(environment) as application:
        assert application.repository.get(counter.id).count == 12
        assert application.repository.get(counter.id, version=8).count == 7
        assert [n.id for n in NotificationLogReader(application.notification_log).read(start=1)] == list(range(1, 14))
        with pytest.raises(AggregateNotFoundError):
            application.repository.get(uuid4())


# ── process recorder ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_events_and_tracking_stand_or_fall_together(
    make_factory: MakeFactory, environment: dict[str, str]
) -> None:
    recorder, other = (make_factory().process_recorder() for _ in range(2))
    assert isinstance(recorder, JetStreamProcessRecorder)
    some = uuid4()
    ids = recorder.insert_events(history(some, 1, 2), tracking=Tracking("upstream", 7))
    assert [n.id for n in recorder.select_notifications(1, 10)] == ids
    with pytest.raises(IntegrityError, match="upstream is already tracked up to 7"):
        other.insert_events(history(uuid4(), 1, 1), tracking=Tracking("upstream", 7))
    with pytest.raises(IntegrityError, match=str(some)):
        other.insert_events(history(some, 2, 2), tracking=Tracking("upstream", 8))
    assert (other.max_tracking_id("upstream"), len(await on_the_stream(environment))) == (7, 3)
    tracked = (await on_the_stream(environment))[0]
    assert (tracked.subject, json.loads(tracked.body)) == (
        f"{environment['NATS_SUBJECT_PREFIX']}.tracking.upstream",
        {"notification_id": 7},
    )


# ── subscriptions and the end ───────────────────────────────────────────────────────────────────────────────────────


def test_a_subscription_follows_and_stops_from_another_thread(recorder: JetStreamApplicationRecorder) -> None:
    seen: list[int] = []
    enough = threading.Event()

    def read() -> None:
        with subscription:
            for notification in subscription:
                seen.append(notification.id)
                if notification.id == 1000:
                    enough.set()

    recorder.insert_events(history(uuid4(), 1, 900))
    subscription = recorder.subscribe()
    reader = threading.Thread(target=read)
    reader.start()
    recorder.insert_events(history(uuid4(), 1, 100))
    assert enough.wait(30)
    subscription.stop()
    reader.join(30)
    assert not reader.is_alive()
    assert seen == list(range(1, 1001))


def test_a_slow_reader_gets_everything(recorder: JetStreamApplicationRecorder) -> None:
    with recorder.subscribe() as subscription:
        for _ in range(10):
            recorder.insert_events(history(uuid4(), 1, 1000))
        assert [next(subscription).id for _ in range(10_000)] == list(range(1, 10_001))


def test_a_closed_factory_ends_whoever_waits(make_factory: MakeFactory) -> None:
    factory = make_factory()
    recorder = factory.application_recorder()
    ended: list[BaseException] = []

    def read() -> None:
        try:
            next(subscription)
        except BaseException as error:
            ended.append(error)

    subscription = recorder.subscribe()
    reader = threading.Thread(target=read)
    reader.start()
    factory.close()
    factory.close()
    reader.join(30)
    assert [type(error) for error in ended] == [InterfaceError]
    with pytest.raises(InterfaceError, match="closed"):
        recorder.max_notification_id()


def test_a_process_that_closes_nothing_still_ends(environment: dict[str, str]) -> None:
    program = (
        "from uuid import uuid4\n"
        "from eventsourcing.application import Application\n"
        "from eventsourcing.domain import Aggregate\n"
        "application = Application()\n"
        "application.save(Aggregate())\n"
        "subscription = application.recorder.subscribe()\n"
        "print(next(subscription).id)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)


def test_the_names_come_from_the_application(make_factory: MakeFactory) -> None:
    """No setting but the module and the server: two applications, two streams."""
    own = [f"App{uuid4().hex}" for _ in range(2)]
    for name in own:
        recorder = make_factory(name, NATS_STREAM="", NATS_SUBJECT_PREFIX="").application_recorder()
        assert recorder.insert_events([StoredEvent(uuid4(), 1, "topic", b"")]) == [1]
