"""The streams of the platform: created if they are missing, checked if they exist."""

import contextlib
from dataclasses import replace

from nats.errors import Error as NatsError, NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError, ServiceUnavailableError

from runtime import subjects
from runtime.bus.api import is_imported
from runtime.tasks.patience import CannotRun, patiently

JETSTREAM_OFF = (10039, 10076)
NOT_CLUSTERED = 10074
#: Maximum number of consumers of the wanted documents.
MOST_CONSUMERS = 100_000
NO_JETSTREAM = "the NATS server, or the account there, has no JetStream: enable it (`nats-server --jetstream`)"


class NotAdapted(NatsError):
    """A stream has the subjects of an earlier version, until the authority of the bus has changed them."""


class WeakStream(CannotRun):
    """A stream exists with weaker guarantees than required. The text says what to change."""


def stream(name: str, subject: str, replicas: int, *, newest: int = -1, max_age: float | None = None) -> StreamConfig:
    """A stream in files. `newest`: messages of each subject that are kept, -1 for all; `max_age` in seconds."""
    return StreamConfig(
        name=name,
        subjects=[subject],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_msgs_per_subject=newest,
        max_age=max_age,
        allow_direct=True,
    )


def events_stream(replicas: int) -> StreamConfig:
    """The log: it is kept for ever, no event can be deleted, and it supports atomic batches."""
    return replace(
        stream(subjects.EVENTS, subjects.events(), replicas),
        deny_delete=True,
        deny_purge=True,
        allow_atomic=True,
        duplicate_window=120,
        max_msg_size=512 * 1024,
    )


def platform_streams(replicas: int) -> list[StreamConfig]:
    """All streams: the log, wanted documents (the newest of each), reports of nodes, leases of nodes, the lease of the
    managers, parked messages, the health check, checkpoints, the vault's keys, refused calls, and last uses of tokens.
    """
    return [
        events_stream(replicas),
        wanted_stream(replicas),
        stream(subjects.REPORTS, subjects.REPORTS_OF_ALL, replicas, newest=16, max_age=7 * 24 * 3600),
        stream(subjects.LEASES, subjects.LEASES_OF_ALL, replicas, newest=1),
        stream(subjects.MANAGERS, subjects.MANAGERS_LEASE, replicas, newest=1),
        stream(subjects.PARKED, subjects.PARKED_OF_ALL, replicas),
        stream(subjects.HEALTH, subjects.HEALTH_CHECK, replicas, newest=1),
        checkpoints_stream(replicas),
        vault_stream(replicas),
        refusals_stream(replicas),
        stream(subjects.TOKEN_USES, subjects.TOKEN_USES_OF_ALL, replicas, newest=1, max_age=400 * 24 * 3600),
    ]


def wanted_stream(replicas: int) -> StreamConfig:
    """The newest wanted document of each resource. Each node has two consumers, and nats-server allows 1,000 by
    default.
    """
    kept = stream(subjects.WANTED, subjects.wanted_of(), replicas, newest=1)
    return replace(kept, allow_atomic=True, max_consumers=MOST_CONSUMERS)


def refusals_stream(replicas: int) -> StreamConfig:
    """The refused calls of a month. No source can remove more than its own, unless there are very many sources."""
    kept = stream(subjects.REFUSALS, subjects.REFUSALS_OF_ALL, replicas, newest=100, max_age=30 * 24 * 3600)
    return replace(kept, max_msgs=10_000)


def checkpoints_stream(replicas: int) -> StreamConfig:
    """The signed checkpoints, which are kept as long as the log."""
    kept = stream(subjects.CHECKPOINTS, subjects.CHECKPOINT, replicas)
    return replace(kept, deny_delete=True, deny_purge=True)


def vault_stream(replicas: int) -> StreamConfig:
    """The vault's keys. A key is erased by deleting its messages, so deleting is allowed."""
    return replace(stream(subjects.VAULT, subjects.VAULT_KEYS, replicas), allow_atomic=True)


#: Streams whose subjects are updated when a newer version of the program uses other ones. Any other stream with wrong
#: subjects is refused. Messages on the earlier subjects stay in the stream.
ADAPTED = frozenset({subjects.WANTED, subjects.REPORTS, subjects.PARKED})

#: Streams whose messages are stored in groups if the stream allows atomic batches. Streams of earlier versions do not;
#: they are updated where this process has the right to, and otherwise by the authority of the bus.
GROUPED = frozenset({subjects.WANTED, subjects.VAULT})

PROMISES = ("deny_delete", "deny_purge", "allow_direct", "allow_atomic")


async def ensure(js: JetStreamContext, wanted: StreamConfig) -> None:
    """Create the stream, or check that the existing one gives all required guarantees.

    Raises WeakStream if it does not. An older server silently ignores options that it does not know.
    """
    assert wanted.name is not None
    try:
        info = await js.stream_info(wanted.name)
    except NotFoundError:
        try:
            info = await js.add_stream(wanted)
        except BadRequestError as error:
            if error.err_code == NOT_CLUSTERED:
                raise WeakStream(f"{error.description} (NEBULA_NATS_REPLICAS is {wanted.num_replicas})") from error
            info = await js.stream_info(wanted.name)  # another process has created it in the meantime
    except (ServiceUnavailableError, NoRespondersError) as error:
        if is_off(js, error):
            raise WeakStream(NO_JETSTREAM) from error
        raise
    have = info.config
    for promise in PROMISES:
        if promise == "allow_atomic" and wanted.name in GROUPED:
            continue
        if getattr(wanted, promise) and not getattr(have, promise):
            raise WeakStream(f"stream {wanted.name} lacks {promise}; set it, on nats-server 2.12 or newer")
    if (have.num_replicas or 1) < (wanted.num_replicas or 1):
        raise WeakStream(
            f"stream {wanted.name} has {have.num_replicas} replicas, {wanted.num_replicas} are required "
            "(NEBULA_NATS_REPLICAS)"
        )
    if sorted(have.subjects or []) != sorted(wanted.subjects or []):
        if wanted.name not in ADAPTED:
            raise WeakStream(f"stream {wanted.name} covers {have.subjects}, not {wanted.subjects}")
        if is_imported(js._nc):
            raise NotAdapted(f"stream {wanted.name} has the subjects of an earlier version: restart `nebula up`")
        have = replace(have, subjects=wanted.subjects)
        await js.update_stream(have)
    if (better := improved(wanted, have)) != have and not is_imported(js._nc):
        await js.update_stream(better)
    if wanted.name in (subjects.WANTED, subjects.REPORTS):
        await _drop_keyed_before(js, wanted.name)
    for limit in ("max_age", "max_msgs", "max_bytes"):
        required, found = getattr(wanted, limit) or 0, getattr(have, limit) or 0
        if found > 0 and (required <= 0 or found < required):
            raise WeakStream(f"stream {wanted.name} deletes messages: its {limit} is {found}; remove that limit")
    if have.retention not in (None, RetentionPolicy.LIMITS, RetentionPolicy.LIMITS.value):
        raise WeakStream(f"stream {wanted.name} has retention {have.retention}; set it to limits")
    if have.storage != StorageType.FILE.value:
        raise WeakStream(f"stream {wanted.name} is in memory; set it to file storage")


def improved(wanted: StreamConfig, have: StreamConfig) -> StreamConfig:
    """The configuration of an existing stream, with the batches and the number of consumers of this version."""
    batches = bool(have.allow_atomic or (wanted.name in GROUPED and wanted.allow_atomic))
    consumers = have.max_consumers
    if wanted.max_consumers is not None and wanted.max_consumers > (consumers or 0):
        consumers = wanted.max_consumers
    return replace(have, allow_atomic=batches, max_consumers=consumers)


def is_off(js: JetStreamContext, error: Exception) -> bool:
    """Whether JetStream is disabled, not only unavailable: the server says so, or it is a single server without it."""
    if isinstance(error, ServiceUnavailableError) and error.err_code in JETSTREAM_OFF:
        return True
    server = js._nc._server_info
    return not server.get("jetstream") and not server.get("cluster")


async def adapt(js: JetStreamContext) -> None:
    """Give existing streams the subjects and the settings of this version, where handlers have no right to.

    Waits for the server.
    """

    async def all_of_them() -> None:
        for wanted in platform_streams(1):
            if wanted.name not in ADAPTED | GROUPED:
                continue
            with contextlib.suppress(NotFoundError):
                have = (await js.stream_info(wanted.name)).config
                adapted = improved(wanted, have)
                if wanted.name in ADAPTED and sorted(have.subjects or []) != sorted(wanted.subjects or []):
                    adapted = replace(adapted, subjects=wanted.subjects)
                if adapted != have:
                    await js.update_stream(adapted)

    await patiently("JetStream", all_of_them)


async def _drop_keyed_before(js: JetStreamContext, name: str) -> None:
    """Remove documents and reports on the subjects of an earlier version, which no process reads any more.

    Handlers write the documents again from the log, and nodes report again, so nothing is lost.
    """
    for subject in subjects.KEYED_BEFORE:
        found = await js.stream_info(name, subjects_filter=subject)
        if found.state.subjects:
            await js.purge_stream(name, subject=subject)


async def ensure_all(js: JetStreamContext, replicas: int) -> None:
    """Create or check all streams of the platform. Waits for the server, or for a cluster to elect a leader."""

    async def all_of_them() -> None:
        for config in platform_streams(replicas):
            await ensure(js, replace(config))

    await patiently("JetStream", all_of_them)
