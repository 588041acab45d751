"""The streams of an application: created if they are missing, refused if their configuration is too weak for a log."""

from eventsourcing.persistence import NotSupportedError, ProgrammingError
from nats.errors import Error as NatsError
from nats.js.api import RetentionPolicy, StreamConfig
from nats.js.errors import NotFoundError, ServiceUnavailableError

from eventstore.library.blocking import Connection
from eventstore.log.jetstream import Unavailable
from runtime.bus import streams

OLDEST = (2, 12)
"""The first version of nats-server with atomic batches."""


async def provision(connection: Connection, wanted: StreamConfig, *, create: bool) -> None:
    """Create the stream, or check the existing one.

    Raises NotSupportedError if the server does not support it, ProgrammingError for a stream that is too weak, or
    missing while `create` is false, OperationalError if the server does not answer. Each message says what to change.
    """
    assert wanted.name is not None
    nc = await connection.client()
    version = nc.connected_server_version
    if (version.major, version.minor) < OLDEST:
        number = f"{version.major}.{version.minor}.{version.patch}"
        raise NotSupportedError(f"nats-server {number} cannot store several events in one batch: use 2.12 or newer")
    js = nc.jetstream(timeout=connection.settings.timeout)
    try:
        try:
            info = await js.stream_info(wanted.name)
        except NotFoundError:
            if not create:
                raise ProgrammingError(
                    f"stream {wanted.name} does not exist: create it, or set CREATE_TABLE=yes to have it created"
                ) from None
        else:
            check(info.config, wanted)
        await streams.ensure(js, wanted)
        check((await js.stream_info(wanted.name)).config, wanted)
    except streams.WeakStream as error:
        raise ProgrammingError(str(error)) from error
    except ServiceUnavailableError as error:
        if error.err_code in streams.JETSTREAM_OFF or not nc._server_info.get("jetstream"):
            raise NotSupportedError(streams.NO_JETSTREAM) from error
        raise Unavailable(f"stream {wanted.name} cannot be checked now: {error}") from error
    except (NatsError, OSError, TimeoutError) as error:
        raise Unavailable(f"stream {wanted.name} cannot be created or checked: {error}") from error


def check(have: StreamConfig, wanted: StreamConfig) -> None:
    """Raises ProgrammingError for a stream that may lose acknowledged messages, or copies another stream."""
    weak: list[str] = []
    if have.retention != RetentionPolicy.LIMITS.value:
        weak.append(f"retention is {have.retention}, not limits")
    weak += [
        f"{limit} is {value}, so that old events are dropped: remove it"
        for limit in ("max_age", "max_msgs", "max_bytes", "max_msgs_per_subject")
        if (value := getattr(have, limit)) and value > 0
    ]
    if (have.num_replicas or 1) < (wanted.num_replicas or 1):
        weak.append(f"it has {have.num_replicas or 1} replicas, and NATS_REPLICAS asks for {wanted.num_replicas}")
    if have.mirror or have.sources:
        weak.append("it copies another stream: use a stream of the application's own")
    if weak:
        raise ProgrammingError(f"stream {wanted.name} cannot hold an application's events: {'; '.join(weak)}")
