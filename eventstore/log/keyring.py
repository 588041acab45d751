"""The file of event keys, `event.keys`: a JSON object that only its owner can read.

Handlers create it at their first start. It also has the position up to which the log is older than its MACs. The file
is outside of the log, so nobody who can write to the log can move this position. All processes that read the log need
the file. They read it again when it has changed. A rotation has three steps: `prepare` adds a key, `rotate` lets it
sign new events, `retire` limits an old key to the positions that exist.
"""

import base64
import binascii
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eventstore.log.jetstream import Unavailable
from eventstore.log.macs import KEY_SIZE, MAC, Fault, Key, Keys
from eventstore.log.store import EventStore
from runtime import answer_keys, ask_keys, logs, subjects
from runtime.files import files
from runtime.tasks.patience import CannotRun

log = logs.get(__name__)

MOST_ASK_KEYS = 64
"""Maximum number of keys that nodes are given."""
LOOK = 1.0
"""Seconds after which a reader looks whether the file has changed."""

_Stamp = tuple[int, int, int]


class BadKeyring(CannotRun):
    """The file of event keys cannot be used. The text says why, and what to do."""


class NoKeyring(Unavailable):
    """There is no file of event keys yet, so nothing in the log can be trusted. Handlers create it."""


class StoredKey(BaseModel):
    """A key in the file. The id is for people: it follows from the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    key: str = Field(repr=False, description="base64 of 32 bytes")
    until: int | None = Field(default=None, ge=0, description="the last position that it may sign")


class Stored(BaseModel):
    """The content of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log: str = subjects.EVENTS
    since: int = Field(ge=0, description="events up to this position need no MAC")
    signer: str = Field(description="the id of the key that signs new events")
    keys: tuple[StoredKey, ...] = Field(min_length=1)

    def opened(self) -> Keys:
        """Raises ValueError if the content contradicts itself."""
        found: dict[str, Key] = {}
        for stored in self.keys:
            key = Key(base64.b64decode(stored.key, validate=True), stored.until)
            if len(key.secret) != KEY_SIZE or key.id != stored.id:
                raise ValueError(f"key {stored.id} does not have {KEY_SIZE} bytes, or another id")
            found[key.id] = key
        if self.signer not in found or found[self.signer].until is not None:
            raise ValueError(f"key {self.signer} cannot sign: it is missing or retired")
        return Keys(found, self.signer, self.since)


class Keyring:
    """The keys in the file. `load` raises NoKeyring while there is no file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: Keys | None = None
        self._stamp: _Stamp | None = None
        self._looked = 0.0

    def load(self) -> Keys:
        """The keys as they are in the file now. Once they were read, they stay while the file is missing or damaged.

        Raises NoKeyring, BadKeyring, OSError.
        """
        self._looked = time.monotonic()
        try:
            found = self.path.stat()
        except FileNotFoundError:
            if self._keys is None:
                raise NoKeyring(f"there is no file of event keys at {self.path}; handlers create it") from None
            return self._keys
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._keys is None or stamp != self._stamp:
            try:
                self._keys, self._stamp = read(self.path).opened(), stamp
            except BadKeyring as error:
                if self._keys is None:
                    raise
                self._stamp = stamp
                log.error("the file of event keys is damaged; the keys that were read before stay", error=str(error))
        return self._keys

    def ready(self) -> None:
        self._current(look=False)

    def asking(self) -> tuple[bytes, ...]:
        """The event keys from which the keys of questions and answers follow: all that are not retired, the newest
        first. Raises as `load`.
        """
        return tuple(key.secret for key in self._current(look=True).by_id.values() if key.until is None)[:MOST_ASK_KEYS]

    def sign_ask(self, node: str, subject: str, challenge: str, body: bytes) -> tuple[dict[str, str], bytes]:
        """The headers of a question to a node, and the key of its answer. Raises as `load`, and ValueError for a
        malformed challenge.
        """
        keys = self._current(look=True)
        secret = keys.by_id[keys.signer].secret
        return ask_keys.signed(secret, subject, challenge, body), answer_keys.derived(secret, node)

    def judges(self, position: int) -> str:
        """Everything of the keys that decides which messages up to a position are events, as text. Raises as `load`."""
        keys = self._current(look=True)
        ends = (position if key.until is None else min(key.until, position) for key in keys.by_id.values())
        return f"{min(keys.since, position)} " + " ".join(sorted(map("{}:{}".format, keys.by_id, ends)))

    def secret(self, id_: str | None = None) -> tuple[str, bytes]:
        """The id and the secret of the key with this id, or of the one that signs. Raises LookupError if there is no
        such key or it is retired; also as `load`.
        """
        keys = self._current(look=True)
        found = id_ or keys.signer
        if keys.by_id[found].until is not None:
            raise LookupError(f"key {found} is retired")
        return found, keys.by_id[found].secret

    def mac(self, digest: str) -> str:
        return self._current(look=False).mac(digest)

    def fault(self, position: int, digest: str, mac: str | None) -> Fault | None:
        fault = self._current(look=False).fault(position, digest, mac)
        return fault and self._current(look=True).fault(position, digest, mac)  # perhaps the key is new

    def _current(self, *, look: bool) -> Keys:
        if self._keys is None or look or time.monotonic() - self._looked > LOOK:
            return self.load()
        return self._keys


def read(path: Path) -> Stored:
    """The content of the file. Raises BadKeyring, OSError."""
    try:
        stored = Stored.model_validate_json(path.read_bytes())
        stored.opened()
    except (ValidationError, ValueError, binascii.Error):  # without details, which may contain a key
        raise BadKeyring(f"{path} is not a file of event keys, or is damaged: restore it from another host") from None
    if stored.log != subjects.EVENTS:
        raise BadKeyring(f"{path} is for the log {stored.log!r}, not {subjects.EVENTS}")
    return stored


# ── the first start ─────────────────────────────────────────────────────────────────────────────────────────────────


async def begin(path: Path, store: EventStore, *, accept: bool = False) -> Keyring:
    """The keyring. If there is no file, it is created: from the log's end on, all events need a MAC.

    If events in the log already have MACs, the file was lost, or belongs on this host too. Then it is only created with
    `accept`, which trusts all events that are in the log now. Raises BadKeyring, Unavailable, OSError.
    """
    if not path.exists():
        since = await store.last_position()
        used = await _used_keys(store, since)
        if used and not accept and not path.exists():
            raise BadKeyring(
                f"the events of the log have MACs (key {', '.join(sorted(used)[:3])}), but {path} is missing: copy it "
                "from the host that has it; if it is lost, check the log with `nebula verify log`, and then make a new "
                "file with `nebula keys begin`"
            )
        fresh = _fresh()
        files.put_once(path, _text(Stored(since=since, signer=fresh.id, keys=(fresh,))))
    keyring = Keyring(path)
    keyring.load()
    return keyring


async def _used_keys(store: EventStore, last: int) -> set[str]:
    """The ids of keys that MACs in the log name."""
    found, after = set[str](), 0
    while after < last:
        page = await store.read(after)
        if not page:
            break
        found |= {one.headers[MAC].partition(":")[0][:8] for one in page if MAC in one.headers}
        after = page[-1].position
    return found


# ── rotation ────────────────────────────────────────────────────────────────────────────────────────────────────────


def prepare(path: Path) -> Stored:
    """Add a key that verifies and does not sign yet, unless there is one. Raises BadKeyring, OSError."""
    return _changed(path, lambda stored: stored if _next(stored) else _with_fresh(stored))


def rotate(path: Path) -> Stored:
    """The prepared key, or a new one, signs new events from now on. Raises BadKeyring, OSError."""

    def changed(stored: Stored) -> Stored:
        ready = stored if _next(stored) else _with_fresh(stored)
        return ready.model_copy(update={"signer": (_next(ready) or ready.keys[0]).id})

    return _changed(path, changed)


def retire(path: Path, id_: str, until: int) -> Stored:
    """Accept no event of a key after position `until`. Raises BadKeyring if it is not in the file, or signs events."""

    def changed(stored: Stored) -> Stored:
        if id_ == stored.signer:
            raise BadKeyring(f"key {id_} signs new events: rotate first")
        if id_ not in {key.id for key in stored.keys}:
            raise BadKeyring(f"{path} has no key {id_}")
        keys = tuple(key.model_copy(update={"until": until}) if key.id == id_ else key for key in stored.keys)
        return stored.model_copy(update={"keys": keys})

    return _changed(path, changed)


def _next(stored: Stored) -> StoredKey | None:
    """The key before the signer in the file: it was prepared and has not signed yet."""
    first = stored.keys[0]
    return first if first.id != stored.signer and first.until is None else None


def _with_fresh(stored: Stored) -> Stored:
    return stored.model_copy(update={"keys": (_fresh(), *stored.keys)})


def _fresh() -> StoredKey:
    secret = secrets.token_bytes(KEY_SIZE)
    return StoredKey(id=Key(secret).id, key=base64.b64encode(secret).decode())


def _changed(path: Path, change: Callable[[Stored], Stored]) -> Stored:
    before = read(path)
    after = change(before)
    if after != before:
        files.put(path, _text(after))
    return after


def _text(stored: Stored) -> bytes:
    return stored.model_dump_json(indent=2, exclude_none=True).encode() + b"\n"
