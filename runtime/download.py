"""A file from an http(s) URL, resumed where an earlier try, or an earlier process, left off.

What has arrived stands in `<name>.part`; beside it, in `<name>.part.json`, what the server said of the whole. Only a
server that vouches, by the same ETag or Last-Modified, that it still has the same file is asked for the rest alone.
Whoever asked judges what has arrived: nothing here is trusted to be the right file.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from runtime.tasks import in_thread

#: Bytes that are gathered before they are written.
CHUNK = 1024 * 1024
#: Seconds for a connection, and seconds without a byte, before a try counts as failed. There is no limit on the whole.
CONNECT, SILENCE = 10.0, 30.0
#: Answers that will not be others tomorrow.
FINAL = (400, 401, 403, 404, 405, 410, 451)

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d+)")

Tell = Callable[[int, int | None], None]
"""Told how many bytes are there, and of how many, where that is known."""

Check = Callable[[int | None], None]
"""Told how many bytes there will be before the first is written; raises where that cannot be."""


class Gone(Exception):
    """There is no such file: to ask again would not help."""


class Interrupted(Exception):
    """It did not come to its end now. What has arrived is kept."""


class TooLong(Exception):
    """More bytes come than the file can have."""


class Origin(BaseModel):
    """What a server said of the file whose beginning has arrived."""

    model_config = ConfigDict(frozen=True)

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """What an If-Range may carry: an ETag only where it is a strong one."""
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


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

    def origin(self) -> Origin | None:
        """Where the bytes that are there came from; None when there are none, or nobody can tell."""
        try:
            return Origin.model_validate_json(self.note.read_bytes()) if self.size else None
        except (FileNotFoundError, ValidationError):
            return None

    def begin(self, origin: Origin) -> None:
        """Throw away what there is. The note is never beside bytes of another file."""
        self.drop()
        new = self.note.with_name(f"{self.note.name}.new")
        new.write_text(origin.model_dump_json())
        new.replace(self.note)

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


async def download(
    url: str,
    part: Part,
    *,
    tell: Tell,
    check: Check,
    most: int,
    connect: float = CONNECT,
    silence: float = SILENCE,
) -> bool:
    """Bring the part to its full length, of `most` bytes. Whether some of it had arrived before.

    Raises Gone, Interrupted, TooLong, what `check` raises, and OSError when it cannot be written.
    """
    known = part.origin()
    if known is not None and (known.url != url or known.validator is None):
        known = None
    if known is not None and part.size == known.total:
        return True
    headers = {"Accept-Encoding": "identity"}
    if known is not None and known.validator is not None:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": known.validator}
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=httpx.Timeout(silence, connect=connect)) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            origin = known if known is not None and _continues(answer, known, part) else _anew(answer, url)
            if origin is not known:
                check(origin.total)
                part.begin(origin)
            elif answer.status_code == httpx.codes.PARTIAL_CONTENT:
                check(origin.total)
            else:
                return True  # there is nothing more
            await _receive(answer, part, origin.total, most, tell)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise Gone(f"{url}: {error}") from error
    except httpx.HTTPError as error:
        raise Interrupted(f"{url}: {str(error) or type(error).__name__}") from error
    if origin.total is not None and part.size != origin.total:
        raise Interrupted(f"{url} ended after {part.size} of {origin.total} bytes")
    return origin is known


def _continues(answer: httpx.Response, known: Origin, part: Part) -> bool:
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
    raise Interrupted(f"{known.url} offers another rest than was asked for; it is fetched from its beginning")


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _anew(answer: httpx.Response, url: str) -> Origin:
    """What the server says of the file that it now sends from its beginning. Raises Gone and Interrupted."""
    status = answer.status_code
    if status != httpx.codes.OK:
        raise (Gone if status in FINAL else Interrupted)(f"{url} answers {status} {answer.reason_phrase}")
    return Origin(
        url=url,
        etag=answer.headers.get("etag"),
        last_modified=answer.headers.get("last-modified"),
        total=_number(answer.headers.get("content-length", "")),
    )


async def _receive(answer: httpx.Response, part: Part, total: int | None, most: int, tell: Tell) -> None:
    """Append what comes. What has come is written also when no more does."""
    size = part.size
    tell(size, total)
    gathered = bytearray()
    with part.path.open("ab", buffering=0) as file:
        try:
            async for piece in answer.aiter_raw():
                gathered += piece
                if len(gathered) >= CHUNK:
                    chunk = bytes(gathered)
                    gathered.clear()  # now: who is cancelled while this is being written must not write it again
                    await in_thread(write, file.fileno(), chunk)
                    size += len(chunk)
                    tell(size, total)
                if size + len(gathered) > most:
                    raise TooLong(f"{answer.url} sends more than {most} bytes")
        finally:
            if gathered:
                await in_thread(write, file.fileno(), bytes(gathered))
    tell(size + len(gathered), total)


def write(descriptor: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[os.write(descriptor, left) :]


async def copy(source: int, part: Part, size: int, tell: Tell) -> None:
    """The first `size` bytes of an open file of this host, always from its beginning. Raises OSError."""
    part.drop()
    with part.path.open("xb", buffering=0) as file:
        done = 0
        while done < size:
            sent = await in_thread(os.sendfile, file.fileno(), source, done, min(16 * CHUNK, size - done))
            if sent == 0:
                return  # it is shorter than it was
            done += sent
            tell(done, size)
