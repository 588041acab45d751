"""Downloads a file from an http(s) URL, and resumes the download of an earlier try or an earlier process.

The bytes that have arrived are in `<name>.part`; the note `<name>.part.json` describes the whole file as the server
did. Only the rest is requested if the server confirms by the same ETag or Last-Modified that it still has the same
file. The caller has to verify the result: nothing here guarantees that it is the right file.

Any failure of a URL, a name server, a server or a library is raised as one of the exceptions below. Their texts contain
no secret of the URL.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from runtime import logs
from runtime.files.files import put
from runtime.images.disk_room import allocate
from runtime.images.image_hosts import Denied, ImageHosts
from runtime.tasks.tasks import in_thread
from runtime.text.urls import plain, shown
from runtime.trust import HINT, distrusted

if TYPE_CHECKING:
    import httpx  # it is loaded with the first download: most processes make none, and it takes 4 MiB

log = logs.get(__name__)

#: Bytes that are collected before they are written.
CHUNK = 1024 * 1024
#: Seconds to connect, and seconds without a byte, after which a try fails.
CONNECT, SILENCE = 10.0, 30.0
#: So many times the sum of both is the time limit for the beginning of the answer, redirects included.
HEADS = 2
#: Bytes of the disk that are allocated in advance while the length is unknown.
AHEAD = 64 * CHUNK
#: Permissions of a download: QEMU's tools, which run as another user, have to read it.
READABLE = 0o644
#: Statuses after which a retry does not help.
FINAL = (400, 401, 403, 404, 405, 410, 451)

_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,19})")
_NUMBER = re.compile(r"[0-9]{1,19}")
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,256}")

Tell = Callable[[int, int | None], None]
"""Called with the number of bytes that have arrived, and the total if it is known."""

Check = Callable[[int | None], None]
"""Called with the total number of bytes (None: unknown) before the first one is written. Raises a Verdict or OSError to
refuse the file."""

Takes = Callable[[int, int], int]
"""If the total is unknown: the number of bytes of the disk that may be allocated now, between a minimum and a maximum.

Raises the errors of Check.
"""


class Verdict(Exception):
    """Base class of the errors with which `check` refuses a file."""


class NotFound(Exception):
    """The URL leads to no file, and a retry does not help."""


class Encoded(Exception):
    """The server sends the file with a content encoding, although none was accepted."""


class Interrupted(Exception):
    """The download was interrupted. The bytes that have arrived are kept; a retry may succeed."""


class TooLong(Exception):
    """The server sends more bytes than the file has."""


@dataclass(frozen=True)
class Pace:
    """The minimum speed of a download, and the maximum duration of one try."""

    #: minimum number of bytes per second, as an average over so many seconds
    least: int = 16 * 1024
    window: float = 60.0
    #: maximum number of seconds of one try
    whole: float = 6 * 3600.0


PACE = Pace()


class Origin(BaseModel):
    """The server's description of a file that has partly arrived."""

    model_config = ConfigDict(frozen=True)

    #: not the URL itself, which may be a secret, because the note stays on the disk
    url_sha256: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong ETag, or else Last-Modified; None if there is neither."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        found = self.etag if strong else self.last_modified
        return found if found is not None and _VALIDATOR.fullmatch(found) else None


class Part:
    """An incomplete download and its note. Both survive a restart of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def held(self) -> int:
        """Bytes that it occupies on the disk, including those allocated in advance."""
        try:
            return max(self.path.stat().st_blocks * 512, self.size)
        except FileNotFoundError:
            return 0

    def origin(self) -> Origin | None:
        """The note on the bytes that have arrived; None if there are no bytes or no valid note."""
        try:
            return Origin.model_validate_json(self.note.read_bytes()) if self.size else None
        except (FileNotFoundError, ValidationError):
            return None

    def begin(self, origin: Origin) -> None:
        """Delete earlier bytes, and write the note of the new file, in this order."""
        self.drop()
        put(self.note, origin.model_dump_json(), durable=False)

    def open(self) -> BinaryIO:
        """Open it for appending. Raises OSError."""
        file = self.path.open("ab", buffering=0)
        os.fchmod(file.fileno(), READABLE)
        return file

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


async def download(
    url: str,
    part: Part,
    *,
    hosts: ImageHosts,
    tell: Tell,
    check: Check,
    most: int,
    takes: Takes = max,
    connect: float = CONNECT,
    silence: float = SILENCE,
    pace: Pace = PACE,
) -> bool:
    """Download the missing bytes of the part, up to `most` in total. Returns whether some bytes had arrived before.

    Raises Denied, NotFound, Encoded, Interrupted, TooLong, the errors of `check` and `takes` (a Verdict), and OSError
    if the part cannot be written.
    """
    import httpx

    from runtime.images.image_client import client, send

    known = part.origin()
    if known is not None and (known.url_sha256 != _hashed(url) or known.validator is None):
        known = None
    if known is not None and part.size == known.total:
        return True
    headers = {"Accept-Encoding": "identity"}
    if known is not None and known.validator is not None:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": known.validator}
    name = f"the source {plain(shown(url))}"
    try:
        async with AsyncExitStack() as stack:
            asking = await stack.enter_async_context(client(hosts, httpx.Timeout(silence, connect=connect)))
            async with timeout(HEADS * (connect + silence), f"{name} does not begin to send the file in time"):
                answer = await send(asking, asking.build_request("GET", url, headers=headers))
                stack.push_async_callback(answer.aclose)
            check_encoding(answer, name)
            resumed = known is not None and _continues(answer, known, part, name)
            origin = known if known is not None and resumed else _new_origin(answer, url, name)
            if origin is not known:
                check(origin.total)
                part.begin(origin)
            elif answer.status_code == HTTPStatus.PARTIAL_CONTENT:
                check(origin.total)
            else:
                return True  # all bytes have arrived before
            await _receive(answer, part, origin.total, most, tell, takes, name, pace, silence)
    except (Verdict, Denied, NotFound, Encoded, Interrupted, TooLong, OSError):
        raise
    except (httpx.InvalidURL, UnicodeError) as error:
        raise NotFound(f"{name} is no valid URL, or redirects to one that is not valid") from error
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        raise NotFound(f"{name}: {_message(error)}") from error
    except httpx.HTTPError as error:
        hint = f"; {HINT}" if distrusted(error) else ""
        raise Interrupted(f"{name}: {_message(error)}{hint}") from error
    except Exception as error:
        log.exception("the download of an image failed with an unknown error", url=plain(shown(url)))
        raise Interrupted(f"{name}: {type(error).__name__}") from error
    if origin.total is not None and part.size != origin.total:
        raise Interrupted(f"{name} ended after {part.size} of {origin.total} bytes")
    return origin is known


def _hashed(url: str) -> str:
    return hashlib.sha256(url.encode(errors="replace")).hexdigest()


def _message(error: Exception) -> str:
    """The message of a library's error; only the type of the error if the message may contain a URL."""
    text = plain(str(error)) or type(error).__name__
    return type(error).__name__ if "//" in text or "@" in text else text


def _continues(answer: "httpx.Response", known: Origin, part: Part, name: str) -> bool:
    """Whether the answer is the rest of the file; False: the whole file. Raises Interrupted if it is neither."""
    if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        whole = _UNSATISFIED.fullmatch(answer.headers.get("content-range", ""))
        if whole is not None and int(whole[1]) == part.size:
            return True
    elif answer.status_code != HTTPStatus.PARTIAL_CONTENT:
        return False
    else:
        found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        same = answer.headers.get("etag", known.etag) == known.etag
        if found is not None and same and int(found[1]) == part.size and known.total in (None, _number(found[2])):
            return True
    part.drop()
    raise Interrupted(f"{name} sends another range than was requested; the download starts again from the beginning")


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def check_encoding(answer: "httpx.Response", name: str) -> None:
    """Raises Encoded for an answer with a content encoding: its bytes are not those of the file."""
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    if answer.status_code in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT) and encoding not in ("", "identity"):
        raise Encoded(
            f"{name} is sent with Content-Encoding: {plain(encoding, 40)}, although none was accepted: configure its "
            "server to send the file without encoding, as application/octet-stream"
        )


def _new_origin(answer: "httpx.Response", url: str, name: str) -> Origin:
    """The server's description of a file that it sends from the beginning. Raises NotFound and Interrupted."""
    status = answer.status_code
    if status != HTTPStatus.OK:
        raise (NotFound if status in FINAL else Interrupted)(
            f"{name} answers {status} {plain(answer.reason_phrase, 60)}"
        )
    return Origin(
        url_sha256=_hashed(url),
        etag=answer.headers.get("etag"),
        last_modified=answer.headers.get("last-modified"),
        total=_number(answer.headers.get("content-length", "")),
    )


async def _receive(
    answer: "httpx.Response",
    part: Part,
    total: int | None,
    most: int,
    tell: Tell,
    takes: Takes,
    name: str,
    pace: Pace,
    silence: float,
) -> None:
    """Append the bytes of the answer to the part; also those that came before a failure.

    Blocks of the disk are allocated in advance, so that two downloads of a host do not count on the same free space.
    """
    size = part.size
    tell(size, total)
    collected = bytearray()
    watch = Watch(pace, asyncio.get_running_loop().time())
    with part.open() as file:
        allocated = total if total is not None else size
        allocate(file.fileno(), allocated)
        try:
            pieces = answer.aiter_raw()
            while True:
                async with timeout(silence, f"{name} sends nothing of the file for {silence:g} s"):
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                collected += piece
                watch.received(len(piece), asyncio.get_running_loop().time(), name)
                if len(collected) >= CHUNK:
                    chunk = bytes(collected)
                    collected.clear()  # before the write: after a cancellation the chunk must not be written again
                    if size + len(chunk) > allocated and total is None:
                        allocated = takes(size + len(chunk), min(size + len(chunk) + AHEAD, most))
                        allocate(file.fileno(), allocated)
                    await in_thread(write, file.fileno(), chunk)
                    size += len(chunk)
                    tell(size, total)
                if size + len(collected) > most:
                    raise TooLong(f"{name} sends more than {most} bytes")
        finally:
            if collected:
                await in_thread(write, file.fileno(), bytes(collected))
            if total is None:
                os.ftruncate(file.fileno(), part.size)  # release what was allocated in advance
    tell(size + len(collected), total)


@asynccontextmanager
async def timeout(seconds: float, late: str) -> AsyncIterator[None]:
    """Raises Interrupted with the text `late` if the block takes longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Interrupted(late) from error


class Watch:
    """Checks the speed and the duration of a download."""

    def __init__(self, pace: Pace, now: float) -> None:
        self._pace = pace
        self._began = self._since = now
        self._bytes = 0

    def received(self, size: int, now: float, name: str) -> None:
        """Count `size` bytes. Raises Interrupted if the download is too slow or takes too long."""
        self._bytes += size
        if now - self._began > self._pace.whole:
            raise Interrupted(f"{name} takes longer than {self._pace.whole:.0f} s")
        if (lasted := now - self._since) >= self._pace.window:
            if self._bytes < self._pace.least * lasted:
                raise Interrupted(f"{name} sends less than {self._pace.least} bytes per second")
            self._since, self._bytes = now, 0


def write(descriptor: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[os.write(descriptor, left) :]


async def copy(source: int, part: Part, size: int, tell: Tell) -> None:
    """Copy the first `size` bytes of an open file of this host into the part. Raises OSError."""
    part.drop()
    with part.path.open("xb", buffering=0) as file:
        os.fchmod(file.fileno(), READABLE)
        allocate(file.fileno(), size)
        done = 0
        while done < size:
            sent = await in_thread(os.sendfile, file.fileno(), source, done, min(16 * CHUNK, size - done))
            if sent == 0:
                return  # the file was truncated meanwhile
            done += sent
            tell(done, size)
