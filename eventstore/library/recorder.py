"""JetStream as a persistence module of the `eventsourcing` library: `PERSISTENCE_MODULE=eventstore.library.recorder`.

The recorders block, as the library's interface requires; `stored_events.py` does the work on the event loop of
`blocking.py`. Errors are those of the library: IntegrityError for a conflict, OperationalError while the server does
not answer, DataError for data that cannot be stored, NotSupportedError for what a log cannot do, ProgrammingError for
an unsuitable stream, InterfaceError after `close()`. See `docs/eventsourcing.md`.
"""

import asyncio
import queue
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    InterfaceError,
    Notification,
    NotSupportedError,
    OperationalError,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic

from eventstore.library.blocking import Connection
from eventstore.library.provision import provision
from eventstore.library.records import Names
from eventstore.library.settings import Settings
from eventstore.library.stored_events import StoredEvents
from runtime.bus import streams

R = TypeVar("R")

WINDOW = 4
"""Number of batches that a subscription reads ahead of its consumer."""


class JetStreamAggregateRecorder(AggregateRecorder):
    """Records of one purpose (events or snapshots). Each aggregate has its own subject."""

    def __init__(self, connection: Connection, events: StoredEvents) -> None:
        self._connection = connection
        self._events = events

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        _refuse_tracking(kwargs)
        self._connection.run(self._events.insert, stored_events)
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        return self._connection.run(self._events.select, originator_id, gt, lte, desc=desc, limit=limit)


class JetStreamApplicationRecorder(JetStreamAggregateRecorder, ApplicationRecorder):
    """The events of an application. Notification ids are positions in its stream: 1, 2, 3, …"""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        _refuse_tracking(kwargs)
        return self._connection.run(self._events.insert, stored_events)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        return self._connection.run(
            self._events.notifications, start, limit, stop, topics, inclusive_of_start=inclusive_of_start
        )

    def max_notification_id(self) -> int | None:
        return self._connection.run(self._events.max_id)

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> "JetStreamSubscription":
        return JetStreamSubscription(self, self._connection, self._events, gt, topics)


class JetStreamTrackingRecorder(TrackingRecorder):
    """The positions up to which events of other applications were processed: one subject each, in
    the events' stream.
    """

    def __init__(self, connection: Connection, events: StoredEvents) -> None:
        self._connection = connection
        self._events = events

    def insert_tracking(self, tracking: Tracking) -> None:
        self._connection.run(self._events.insert, [], tracking)

    def max_tracking_id(self, application_name: str) -> int | None:
        return self._connection.run(self._events.max_tracking_id, application_name)


class JetStreamProcessRecorder(JetStreamTrackingRecorder, JetStreamApplicationRecorder, ProcessRecorder):
    """Stores events together with the position of the event that they result from, in one atomic batch. Tracking
    records take positions of the stream too, so notification ids have gaps.
    """

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        return self._connection.run(self._events.insert, stored_events, kwargs.get("tracking"))


class JetStreamSubscription(Subscription[JetStreamApplicationRecorder]):
    """Notifications in the order of the log, as they are stored. `stop()`, from any thread, ends a wait immediately."""

    def __init__(
        self,
        recorder: JetStreamApplicationRecorder,
        connection: Connection,
        events: StoredEvents,
        gt: int | None,
        topics: Sequence[str],
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._connection = connection
        self._batches: queue.SimpleQueue[list[Notification] | None] = queue.SimpleQueue()
        self._current: list[Notification] = []
        self._index = 0
        pump = _Pump(events, gt or 0, topics, self._batches)
        self._read_one = pump.room.release
        self._pump: Future[None] = connection.submit(pump.run)

    def stop(self) -> None:
        super().stop()
        self._pump.cancel()
        self._batches.put(None)

    def __exit__(self, *args: object, **kwargs: Any) -> None:
        super().__exit__(*args, **kwargs)
        with suppress(CancelledError, OperationalError):
            self._pump.result(timeout=5)

    def __next__(self) -> Notification:
        while not self._has_been_stopped:
            if self._index < len(self._current):
                self._index += 1
                return self._current[self._index - 1]
            batch = self._batches.get()
            if batch is not None:
                self._current, self._index = batch, 0
                self._connection.soon(self._read_one)
            elif not self._has_been_stopped:
                self._has_been_stopped = True
                with suppress(CancelledError):
                    self._pump.result()
                raise InterfaceError("the connection to the log has been closed")
        raise StopIteration


class _Pump:
    """Puts batches of notifications into a queue, at most WINDOW ahead of the reader. None marks the end."""

    def __init__(
        self,
        events: StoredEvents,
        after: int,
        topics: Sequence[str],
        batches: "queue.SimpleQueue[list[Notification] | None]",
    ) -> None:
        self.room = asyncio.Semaphore(WINDOW)
        self._events = events
        self._after = after
        self._topics = topics
        self._batches = batches

    async def run(self) -> None:
        try:
            async with aclosing(self._events.listen(self._after, self._topics)) as batches:
                async for batch in batches:
                    if batch:
                        await self.room.acquire()
                        self._batches.put(batch)
        finally:
            self._batches.put(None)


class JetStreamFactory(InfrastructureFactory[JetStreamTrackingRecorder]):
    """Makes recorders on the streams that the environment names (`Settings`). Missing streams are created.

    Raises OSError for wrong settings, OperationalError if the server does not answer, ProgrammingError and
    NotSupportedError if the stream or the server is unsuitable. Each message says what to change.
    """

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._settings = Settings.read(self.env)
        self._connection = Connection(self._settings, f"eventsourcing-{self.env.name or 'application'}")

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        return JetStreamAggregateRecorder(self._connection, self._stored_events(purpose))

    def application_recorder(self) -> ApplicationRecorder:
        recorder_class = self._recorder_class(self.APPLICATION_RECORDER_TOPIC, JetStreamApplicationRecorder)
        return recorder_class(self._connection, self._stored_events("events"))

    def tracking_recorder(
        self, tracking_recorder_class: type[JetStreamTrackingRecorder] | None = None
    ) -> JetStreamTrackingRecorder:
        if tracking_recorder_class is None:
            tracking_recorder_class = self._recorder_class(self.TRACKING_RECORDER_TOPIC, JetStreamTrackingRecorder)
        _check_class(tracking_recorder_class, JetStreamTrackingRecorder)
        return tracking_recorder_class(self._connection, self._stored_events("events"))

    def process_recorder(self) -> ProcessRecorder:
        recorder_class = self._recorder_class(self.PROCESS_RECORDER_TOPIC, JetStreamProcessRecorder)
        return recorder_class(self._connection, self._stored_events("events"))

    def close(self) -> None:
        """End the connection and its thread. Recorders raise InterfaceError after that."""
        with suppress(AttributeError):  # there is no connection if the settings were wrong
            self._connection.close()

    def _recorder_class(self, setting: str, default: type[R]) -> type[R]:
        topic = self.env.get(setting)
        return _check_class(resolve_topic(topic), default) if topic else default

    def _stored_events(self, purpose: str) -> StoredEvents:
        settings = self._settings
        names = Names(settings.prefix, purpose)
        name = settings.stream if purpose == "events" else f"{settings.stream}_{purpose.upper()}"
        config = replace(
            streams.events_stream(settings.replicas),
            name=name,
            subjects=names.stream_subjects,
            max_msg_size=-1,
        )
        self._connection.run(provision, self._connection, config, create=settings.create)
        return StoredEvents(self._connection.client, name, names, timeout=settings.timeout)


def _refuse_tracking(kwargs: dict[str, Any]) -> None:
    if kwargs.get("tracking") is not None:
        raise NotSupportedError("this recorder does not store tracking: use a process recorder")


def _check_class(recorder_class: type[R], base: type[R]) -> type[R]:
    if not (isinstance(recorder_class, type) and issubclass(recorder_class, base)):
        raise NotSupportedError(
            f"{recorder_class} is not a {base.__name__}, so it cannot be stored in a log: a view stores its tracking "
            "in the database of its rows; give the projection its own persistence module with "
            "<PROJECTION NAME>_PERSISTENCE_MODULE=eventsourcing.postgres"
        )
    return recorder_class
