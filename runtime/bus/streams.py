"""The streams of the platform, made where they are missing and checked where they exist."""

from dataclasses import replace

from nats.errors import NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError, ServiceUnavailableError

from runtime import subjects
from runtime.tasks.patience import CannotRun, patiently

JETSTREAM_OFF = (10039, 10076)
NOT_CLUSTERED = 10074
NO_JETSTREAM = "the server, or the account there, has no JetStream: enable it (`nats-server --jetstream`)"


class WeakStream(CannotRun):
    """A stream exists with weaker promises than the settings ask for. The text says what to change."""


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
    """The log of record: kept for ever, nothing deleted, several events in one atomic batch."""
    return replace(
        stream(subjects.EVENTS, subjects.events(), replicas),
        deny_delete=True,
        deny_purge=True,
        allow_atomic=True,
        duplicate_window=120,
        max_msg_size=512 * 1024,
    )


def platform_streams(replicas: int) -> list[StreamConfig]:
    """All streams: the log, what nodes should want (newest per VM), what they report, who has their leases, who runs
    the managers, what was parked, what was signed, the vault's keys.
    """
    return [
        events_stream(replicas),
        stream(subjects.WANTED, subjects.wanted_of(), replicas, newest=1),
        stream(subjects.REPORTS, subjects.REPORTS_OF_ALL, replicas, newest=16, max_age=7 * 24 * 3600),
        stream(subjects.LEASES, subjects.LEASES_OF_ALL, replicas, newest=1),
        stream(subjects.MANAGERS, subjects.MANAGERS_LEASE, replicas, newest=1),
        stream(subjects.PARKED, subjects.PARKED_OF_ALL, replicas),
        stream(subjects.HEALTH, subjects.HEALTH_CHECK, replicas, newest=1),
        checkpoints_stream(replicas),
        vault_stream(replicas),
    ]


def checkpoints_stream(replicas: int) -> StreamConfig:
    """What was signed of the log: kept as long as the log."""
    kept = stream(subjects.CHECKPOINTS, subjects.CHECKPOINT, replicas)
    return replace(kept, deny_delete=True, deny_purge=True)


def vault_stream(replicas: int) -> StreamConfig:
    """The vault's keys. Single messages are deleted from it: that is how a key is erased."""
    return stream(subjects.VAULT, subjects.VAULT_KEYS, replicas)


#: Streams whose subjects are updated when a newer version of the program uses other ones. Any other stream that covers
#: other subjects than asked is refused. Messages on the earlier subjects stay in the stream.
ADAPTED = frozenset({subjects.WANTED, subjects.REPORTS, subjects.PARKED})

PROMISES = ("deny_delete", "deny_purge", "allow_direct", "allow_atomic")


async def ensure(js: JetStreamContext, wanted: StreamConfig) -> None:
    """Create the stream, or check that the one there keeps every promise asked of it.

    Raises WeakStream when it does not: an older server leaves out what it does not know, and says nothing.
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
            info = await js.stream_info(wanted.name)  # another process made it in the meantime
    except (ServiceUnavailableError, NoRespondersError) as error:
        if is_off(js, error):
            raise WeakStream(NO_JETSTREAM) from error
        raise
    have = info.config
    for promise in PROMISES:
        if getattr(wanted, promise) and not getattr(have, promise):
            raise WeakStream(f"stream {wanted.name} lacks {promise}; set it, on nats-server 2.12 or newer")
    if (have.num_replicas or 1) < (wanted.num_replicas or 1):
        raise WeakStream(
            f"stream {wanted.name} has {have.num_replicas} replicas, {wanted.num_replicas} are asked "
            "(NEBULA_NATS_REPLICAS)"
        )
    if sorted(have.subjects or []) != sorted(wanted.subjects or []):
        if wanted.name not in ADAPTED:
            raise WeakStream(f"stream {wanted.name} covers {have.subjects}, not {wanted.subjects}")
        await js.update_stream(replace(have, subjects=wanted.subjects))
    if wanted.name in (subjects.WANTED, subjects.REPORTS):
        await _drop_keyed_before(js, wanted.name)
    for limit in ("max_age", "max_msgs", "max_bytes"):
        asked, found = getattr(wanted, limit) or 0, getattr(have, limit) or 0
        if found > 0 and (asked <= 0 or found < asked):
            raise WeakStream(f"stream {wanted.name} forgets: its {limit} is {found}; remove that limit")
    if have.retention not in (None, RetentionPolicy.LIMITS, RetentionPolicy.LIMITS.value):
        raise WeakStream(f"stream {wanted.name} has retention {have.retention}; it has to be limits")
    if have.storage != StorageType.FILE.value:
        raise WeakStream(f"stream {wanted.name} is kept in memory; it has to be file storage")


def is_off(js: JetStreamContext, error: Exception) -> bool:
    """Whether JetStream is switched off, and not just away: its server says so, or is alone and does not know it."""
    if isinstance(error, ServiceUnavailableError) and error.err_code in JETSTREAM_OFF:
        return True
    server = js._nc._server_info
    return not server.get("jetstream") and not server.get("cluster")


async def _drop_keyed_before(js: JetStreamContext, name: str) -> None:
    """Remove documents and reports on the subjects of an earlier version: nobody reads them there any more.

    Documents are written anew from the log, and nodes report again, so nothing is lost.
    """
    for subject in subjects.KEYED_BEFORE:
        found = await js.stream_info(name, subjects_filter=subject)
        if found.state.subjects:
            await js.purge_stream(name, subject=subject)


async def ensure_all(js: JetStreamContext, replicas: int) -> None:
    """Every stream of the platform, once the server has them: a cluster without a leader is waited for."""

    async def all_of_them() -> None:
        for config in platform_streams(replicas):
            await ensure(js, replace(config))

    await patiently("JetStream", all_of_them)
