"""The file with a snapshot of the world, `world.snapshot` in the home.

A line that names the format; the messages of `contents.py`, each after its length, and an empty one at the end; the
header as JSON, and its length; the HMAC-SHA256 of everything before it, with a key that follows from an event key. So
only who can write events can make a snapshot that is accepted. No message is decoded before all of that was checked.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from sys import version_info
from typing import BinaryIO

import msgspec
import pydantic
from pydantic import BaseModel, ConfigDict, ValidationError

import domain
import eventstore.log
import handlers.world
from eventstore.log.keyring import Keyring
from runtime import subjects
from runtime.files import files

NAME = "world.snapshot"
FORMAT = b"nebula world snapshot 1\n"
#: The packages whose code decides what the world makes of a log.
DECIDING = (domain, eventstore.log, handlers.world)
#: Maximum number of bytes of the header, and of one message.
MOST_HEADER, MOST_MESSAGE = 64 * 1024, 256 * 1024**2
_TAG, _LENGTH = 32, 8
_BLOCK = 1024**2
_LABEL = b"nebula world snapshot 1"


class Doubtful(Exception):
    """A snapshot cannot be used. The text says why."""


class Header(BaseModel):
    """What a snapshot is of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    log: str = subjects.EVENTS
    code: str
    """Of `code_digest`."""
    judges: str
    """What decided which messages were events: `Keyring.judges`."""
    key: str
    """The id of the event key that the MAC follows from."""
    position: int
    marks: tuple[tuple[int, str], ...]
    """Positions of the log and the digests of the messages there; the last one is that of the snapshot."""
    content: str = ""
    """SHA-256 of all messages."""
    forged: bool
    """Whether a message up to the position had no valid MAC, so that another event key might make it an event."""


@cache
def code_digest() -> str:
    """A digest of all code that decides what the world makes of a log, and of the versions of what it uses.

    It covers the sources, so nobody has to remember to change a number. Raises OSError.
    """
    found = hashlib.sha256()
    used = (version_info[:3], pydantic.VERSION, msgspec.__version__, zlib.ZLIB_RUNTIME_VERSION)
    found.update(repr(used).encode())
    for package in DECIDING:
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            found.update(f"\n{package.__name__} {path.relative_to(folder)}\n".encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def mac_key(secret: bytes) -> bytes:
    return hmac.digest(secret, _LABEL, "sha256")


class Writer:
    """Writes a snapshot beside the file, and puts it in place once it is complete. All methods raise OSError."""

    def __init__(self, path: Path, secret: bytes) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        self._mac = hmac.new(mac_key(secret), digestmod="sha256")
        self._content = hashlib.sha256()
        self._file = os.fdopen(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._write(FORMAT)

    def _write(self, data: bytes) -> None:
        self._mac.update(data)
        self._file.write(data)

    def add(self, message: bytes) -> None:
        self._content.update(message)
        self._write(len(message).to_bytes(_LENGTH))
        self._write(message)

    def finish(self, header: Header) -> None:
        """Put the file in place, durably. `content` of the header is filled in."""
        text = header.model_copy(update={"content": self._content.hexdigest()}).model_dump_json().encode()
        self._write(bytes(_LENGTH) + text + len(text).to_bytes(_LENGTH))
        self._file.write(self._mac.digest())
        self._file.flush()
        self._file.close()
        files.put_in_place(self._part, self._path, 0o600)

    def abandon(self) -> None:
        """Remove what was written. It does nothing after `finish`."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._part.unlink(missing_ok=True)


class Snapshot:
    """A complete file whose MAC is right. `messages` reads the same open file, which nobody can replace meanwhile."""

    def __init__(self, header: Header, file: BinaryIO) -> None:
        self.header = header
        self._file = file

    def messages(self) -> Iterator[bytes]:
        """The messages. Raises Doubtful, OSError."""
        self._file.seek(len(FORMAT))
        content = hashlib.sha256()
        while length := int.from_bytes(self._file.read(_LENGTH)):
            if length > MOST_MESSAGE:
                raise Doubtful("it is damaged: a part is too long")
            message = self._file.read(length)
            content.update(message)
            yield message
        if content.hexdigest() != self.header.content:
            raise Doubtful("its content is not what its header says")

    def close(self) -> None:
        self._file.close()


def opened(path: Path, keys: Keyring) -> Snapshot | None:
    """The snapshot in the file; None if there is none. Raises Doubtful, OSError, and as `Keyring.load`."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    except FileNotFoundError:
        return None
    try:
        header = read_header(file)
        check_mac(file, header, keys)
        if header.log != subjects.EVENTS:
            raise Doubtful(f"it is of the log {header.log[:80]!r}")
        if header.code != code_digest():
            raise Doubtful("another version of the code made it")
        if header.judges != keys.judges(header.position):
            raise Doubtful("the event keys have changed since it was made")
        if not header.marks or header.marks[-1][0] != header.position:
            raise Doubtful("its header contradicts itself")
    except BaseException:
        file.close()
        raise
    return Snapshot(header, file)


def read_header(file: BinaryIO) -> Header:
    """Raises Doubtful, OSError."""
    end = os.fstat(file.fileno()).st_size - _TAG - _LENGTH
    if file.read(len(FORMAT)) != FORMAT or end < len(FORMAT):
        raise Doubtful("it has another format, or is damaged")
    file.seek(end)
    length = int.from_bytes(file.read(_LENGTH))
    if not 0 < length <= min(MOST_HEADER, end - len(FORMAT)):
        raise Doubtful("it is damaged")
    file.seek(end - length)
    try:
        return Header.model_validate_json(file.read(length))
    except ValidationError:
        raise Doubtful("its header has another format, or is damaged") from None


def check_mac(file: BinaryIO, header: Header, keys: Keyring) -> None:
    """Raises Doubtful unless the MAC at the end of the file is right; OSError."""
    try:
        _, secret = keys.secret(header.key)
    except LookupError:
        raise Doubtful("it was made with an event key that is retired or not in the file of event keys") from None
    rest = os.fstat(file.fileno()).st_size - _TAG
    mac = hmac.new(mac_key(secret), digestmod="sha256")
    file.seek(0)
    while rest > 0 and (block := file.read(min(rest, _BLOCK))):
        mac.update(block)
        rest -= len(block)
    given = file.read(_TAG)
    if rest != 0 or not hmac.compare_digest(mac.digest(), given):
        raise Doubtful("its MAC is wrong: it is damaged, or handlers did not write it")
