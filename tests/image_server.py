"""An HTTP server for one file that behaves as it is told: well, or as badly as the world's servers do."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from node_daemon.storage import images
from runtime.images.image_hosts import ImageHosts

#: What tests fetch from: a server on loopback, which is refused unless a setting names it.
LOOPBACK_SETTING = "127.0.0.1"
LOOPBACK = ImageHosts.of(LOOPBACK_SETTING)


class Images(images.Images):
    """The images of a node that may fetch from this host."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **{"hosts": LOOPBACK, **more})


@dataclass
class ImageServer:
    """`requests` holds the headers of every request, in lower case."""

    body: bytes = b""
    status: str = "200 OK"
    #: what it vouches for the file with
    etag: str | None = '"v1"'
    last_modified: str | None = None
    #: whether it honours Range; whether it says how long the file is
    ranges: bool = True
    length: bool = True
    #: bytes after which each answer breaks off: by hanging up, or by falling silent until `go_on` is set
    cut: int | None = None
    stall: int | None = None
    #: bytes after which each answer waits for `go_on`, and then continues
    hold: int | None = None
    #: seconds between pieces of 64 KiB
    slow: float = 0.0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[dict[str, str]] = field(default_factory=list)
    #: what it says that the bytes are packed with
    encoding: str | None = None
    #: requests that are answered; the others get 403
    answers: int | None = None
    #: what is answered in place of all that, byte by byte
    raw: bytes | None = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/image"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        asked = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        self.requests.append(asked)
        if self.raw is not None:
            with contextlib.suppress(ConnectionError):
                writer.write(self.raw)
                await writer.drain()
            writer.close()
            return
        status, headers, body = self._reply(asked)
        if self.length:
            headers.append(f"Content-Length: {len(body)}")
        headers += [f"Content-Encoding: {self.encoding}"] if self.encoding else []
        headers += ["Connection: close", *([f"ETag: {self.etag}"] if self.etag else [])]
        headers += [f"Last-Modified: {self.last_modified}"] if self.last_modified else []
        try:
            writer.write("\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode())
            await self._send(writer, body)
            writer.close()
        except ConnectionError:
            pass  # the client has gone

    def _reply(self, asked: dict[str, str]) -> tuple[str, list[str], bytes]:
        if self.answers is not None and len(self.requests) > self.answers:
            return "403 Forbidden", [], b""
        found = re.fullmatch(r"bytes=(\d+)-", asked.get("range", ""))
        same = asked.get("if-range") in (None, self.etag, self.last_modified)
        if self.status != "200 OK" or not self.ranges or found is None or not same:
            return self.status, [], self.body
        start, whole = int(found[1]), len(self.body)
        if start >= whole:
            return "416 Range Not Satisfiable", [f"Content-Range: bytes */{whole}"], b""
        return "206 Partial Content", [f"Content-Range: bytes {start}-{whole - 1}/{whole}"], self.body[start:]

    async def _send(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        sent, hold = 0, self.hold
        while sent < len(body):
            end = min(sent + 65536, *(limit for limit in (self.cut, self.stall, hold, len(body)) if limit is not None))
            writer.write(body[sent:end])
            await writer.drain()
            sent = end
            if sent == self.cut:
                return
            if sent == hold:
                await self.go_on.wait()
                hold = None
            if sent == self.stall:
                await self.go_on.wait()
                return
            await asyncio.sleep(self.slow)


@asynccontextmanager
async def serving(body: bytes = b"") -> AsyncIterator[ImageServer]:
    server = ImageServer(body)
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.go_on.set()
        listener.close()
