"""A file from an http(s) URL, resumed where an earlier try, or an earlier process, left off.

What has arrived stands in `<name>.part`; beside it, in `<name>.part.json`, what the server said of the whole. Only a
server that vouches, by the same ETag or Last-Modified, that it still has the same file is asked for the rest alone.
Whoever asked judges what has arrived: nothing here is trusted to be the right file.

Whatever a URL, a name server, a server or a library does wrong leaves here as one of the exceptions below. Their texts
hold no secret of the URL.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from runtime import logs
from runtime.files.files import put
from runtime.images.disk_room import allocate
from runtime.images.image_client import client, opened
from runtime.images.image_hosts import Denied, ImageHosts
from runtime.tasks.tasks import in_thread
from runtime.text.urls import plain, shown
from runtime.trust import HINT, distrusted

log = logs.get(__name__)

#: Bytes that are gathered before they are written.
CHUNK = 1024 * 1024
#: Seconds for a connection, and seconds without a byte, before a try counts as failed.
CONNECT, SILENCE = 10.0, 30.0
#: So many times both of them for the answer to begin, redirects included.
HEADS = 2
#: Bytes that are taken from the disk in advance where the length is not known.
AHEAD = 64 * CHUNK
#: Where a file on its way may be read: for QEMU's tools, which run as another user. Its folder may be closed to others.
READABLE = 0o644
#: Answers that will not be others tomorrow.
FINAL = (400, 401, 403, 404, 405, 410, 451)

_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,19})")
_NUMBER = re.compile(r"[0-9]{1,19}")
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,256}")

Tell = Callable[[int, int | None], None]
"""Told how many bytes are there, and of how many, where that is known."""

Check = Callable[[int | None], None]
"""Told how many bytes there will be before the first is written; raises a Verdict, or OSError, where that cannot be."""

Takes = Callable[[int, int], int]
"""Where nobody knows that number: how much of the disk may be taken now, of so many bytes at least and so many at best.

Raises as Check does.
"""


class Verdict(Exception):
    """Base of what `check` raises: whoever asked has judged."""


class Gone(Exception):
    """There is no such file: to ask again would not help."""


class Encoded(Exception):
    """The server sends it packed, though it was asked for as it is."""


class Interrupted(Exception):
    """It did not come to its end now. What has arrived is kept."""


class TooLong(Exception):
    """More bytes come than the file can have."""


@dataclass(frozen=True)
class Pace:
    """How slowly a file may come, and how long one try may take."""

    #: bytes a second that have to come, on the average of so many seconds
    least: int = 16 * 1024
    window: float = 60.0
    #: seconds for the whole of one try
    whole: float = 6 * 3600.0


PACE = Pace()


class Origin(BaseModel):
    """What a server said of the file whose beginning has arrived."""

    model_config = ConfigDict(frozen=True)

    #: the URL may be a secret, and the note stays on the disk
    url_sha256: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """What an If-Range may carry: an ETag only where it is a strong one."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        found = self.etag if strong else self.last_modified
        return found if found is not None and _VALIDATOR.fullmatch(found) else None


class Part:
    """A file on its way, and its note. Both outlive the process."""

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
        """Bytes of the disk that it has already, those taken in advance among them."""
        try:
            return max(self.path.stat().st_blocks * 512, self.size)
        except FileNotFoundError:
            return 0

    def origin(self) -> Origin | None:
        """Where the bytes that are there came from; None when there are none, or nobody can tell."""
        try:
            return Origin.model_validate_json(self.note.read_bytes()) if self.size else None
        except (FileNotFoundError, ValidationError):
            return None

    def begin(self, origin: Origin) -> None:
        """Throw away what there is. The note is never beside bytes of another file."""
        self.drop()
        put(self.note, origin.model_dump_json(), durable=False)

    def open(self) -> BinaryIO:
        """For writing at its end."""
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
    """Bring the part to its full length, of `most` bytes. Whether some of it had arrived before.

    Raises Denied, Gone, Encoded, Interrupted, TooLong, what `check` and `takes` raise (a Verdict), and OSError when it
    cannot be written.
    """
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
            async with timeout(HEADS * (connect + silence), f"{name} does not come to the beginning of the file"):
                answer = await opened(asking, asking.build_request("GET", url, headers=headers))
                stack.push_async_callback(answer.aclose)
            as_it_is(answer, name)
            origin = known if known is not None and _continues(answer, known, part, name) else _anew(answer, url, name)
            if origin is not known:
                check(origin.total)
                part.begin(origin)
            elif answer.status_code == httpx.codes.PARTIAL_CONTENT:
                check(origin.total)
            else:
                return True  # there is nothing more
            await _receive(answer, part, origin.total, most, tell, takes, name, pace, silence)
    except (Verdict, Denied, Gone, Encoded, Interrupted, TooLong, OSError):
        raise
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Gone(f"{name} leads to what is no URL") from error
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
        raise Gone(f"{name}: {_said(error, url)}") from error
    except httpx.HTTPError as error:
        hint = f"; {HINT}" if distrusted(error) else ""
        raise Interrupted(f"{name}: {_said(error, url)}{hint}") from error
    except Exception as error:
        log.exception("an image source was answered by an unknown error", url=plain(shown(url)))
        raise Interrupted(f"{name}: {type(error).__name__}") from error
    if origin.total is not None and part.size != origin.total:
        raise Interrupted(f"{name} ended after {part.size} of {origin.total} bytes")
    return origin is known


def _hashed(url: str) -> str:
    return hashlib.sha256(url.encode(errors="replace")).hexdigest()


def _said(error: Exception, url: str) -> str:
    """What a library says, without what it may repeat of a URL."""
    text = plain(str(error)) or type(error).__name__
    return type(error).__name__ if "//" in text or "@" in text else text


def _continues(answer: httpx.Response, known: Origin, part: Part, name: str) -> bool:
    """Whether the answer is the rest of what is there. Raises Interrupted when it is neither that nor the whole."""
    if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        whole = _UNSATISFIED.fullmatch(answer.headers.get("content-range", ""))
        if whole is not None and int(whole[1]) == part.size:
            return True
    elif answer.status_code != httpx.codes.PARTIAL_CONTENT:
        return False
    else:
        found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        same = answer.headers.get("etag", known.etag) == known.etag
        if found is not None and same and int(found[1]) == part.size and known.total in (None, _number(found[2])):
            return True
    part.drop()
    raise Interrupted(f"{name} offers another rest than was asked for; it is fetched from its beginning")


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def as_it_is(answer: httpx.Response, name: str) -> None:
    """Raises Encoded for a file that comes packed for the way: it would be judged as what it is not."""
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    if answer.status_code in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT) and encoding not in ("", "identity"):
        raise Encoded(
            f"{name} is sent with Content-Encoding: {plain(encoding, 40)}, though it was asked for without: have its "
            "server send the file as it is, as application/octet-stream"
        )


def _anew(answer: httpx.Response, url: str, name: str) -> Origin:
    """What the server says of the file that it now sends from its beginning. Raises Gone and Interrupted."""
    status = answer.status_code
    if status != httpx.codes.OK:
        raise (Gone if status in FINAL else Interrupted)(f"{name} answers {status} {plain(answer.reason_phrase, 60)}")
    return Origin(
        url_sha256=_hashed(url),
        etag=answer.headers.get("etag"),
        last_modified=answer.headers.get("last-modified"),
        total=_number(answer.headers.get("content-length", "")),
    )


async def _receive(
    answer: httpx.Response,
    part: Part,
    total: int | None,
    most: int,
    tell: Tell,
    takes: Takes,
    name: str,
    pace: Pace,
    silence: float,
) -> None:
    """Append what comes. What has come is written also when no more does.

    The disk's blocks are taken before the bytes come, so that no two downloads of a host count on the same room.
    """
    size = part.size
    tell(size, total)
    gathered = bytearray()
    watch = Watch(pace, asyncio.get_running_loop().time())
    with part.open() as file:
        taken = total if total is not None else size
        allocate(file.fileno(), taken)
        try:
            pieces = answer.aiter_raw()
            while True:
                async with timeout(silence, f"{name} sends nothing of the file for {silence:g} s"):
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                gathered += piece
                watch.came(len(piece), asyncio.get_running_loop().time(), name)
                if len(gathered) >= CHUNK:
                    chunk = bytes(gathered)
                    gathered.clear()  # now: who is cancelled while this is being written must not write it again
                    if size + len(chunk) > taken and total is None:
                        taken = takes(size + len(chunk), min(size + len(chunk) + AHEAD, most))
                        allocate(file.fileno(), taken)
                    await in_thread(write, file.fileno(), chunk)
                    size += len(chunk)
                    tell(size, total)
                if size + len(gathered) > most:
                    raise TooLong(f"{name} sends more than {most} bytes")
        finally:
            if gathered:
                await in_thread(write, file.fileno(), bytes(gathered))
            if total is None:
                os.ftruncate(file.fileno(), part.size)  # gives back what was taken in advance
    tell(size + len(gathered), total)


@asynccontextmanager
async def timeout(seconds: float, late: str) -> AsyncIterator[None]:
    """Raises Interrupted, with that text, where it takes longer: whatever else comes meanwhile, a byte at a time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Interrupted(late) from error


class Watch:
    """Whether bytes come as fast as they have to."""

    def __init__(self, pace: Pace, now: float) -> None:
        self._pace = pace
        self._began = self._since = now
        self._bytes = 0

    def came(self, size: int, now: float, name: str) -> None:
        """Raises Interrupted where it goes too slowly, or takes too long."""
        self._bytes += size
        if now - self._began > self._pace.whole:
            raise Interrupted(f"{name} takes longer than {self._pace.whole:.0f} s")
        if (lasted := now - self._since) >= self._pace.window:
            if self._bytes < self._pace.least * lasted:
                raise Interrupted(f"{name} sends less than {self._pace.least} bytes a second")
            self._since, self._bytes = now, 0


def write(descriptor: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[os.write(descriptor, left) :]


async def copy(source: int, part: Part, size: int, tell: Tell) -> None:
    """The first `size` bytes of an open file of this host, always from its beginning. Raises OSError."""
    part.drop()
    with part.path.open("xb", buffering=0) as file:
        os.fchmod(file.fileno(), READABLE)
        allocate(file.fileno(), size)
        done = 0
        while done < size:
            sent = await in_thread(os.sendfile, file.fileno(), source, done, min(16 * CHUNK, size - done))
            if sent == 0:
                return  # it is shorter than it was
            done += sent
            tell(done, size)
