"""Serves the metrics of this node: `GET /metrics`, and nothing else."""

import asyncio
import contextlib
from collections.abc import Callable

from node_daemon.usage.metrics import CONTENT_TYPE
from runtime import logs

log = logs.get(__name__)

#: Maximum number of connections, bytes of the request line and headers, and seconds of one connection.
MOST, HEAD, SECONDS = 8, 8192, 5.0
#: Seconds until the next try to listen, if the port is in use.
RETRY = 60.0


class Listener:
    """Listens on an address and a port while `run` runs. `text` makes the answer, on a thread."""

    def __init__(self, host: str, port: int, text: Callable[[], bytes]) -> None:
        self._host, self._port, self._text = host, port, text
        self._open = 0
        #: the port that it listens on; None while it does not
        self.port: int | None = None

    async def run(self) -> None:
        """Serve until cancelled. A port that is in use is tried again every minute."""
        failed = False
        while True:
            try:
                server = await asyncio.start_server(self._serve, self._host, self._port, limit=HEAD)
            except OSError as error:
                if not failed:
                    log.warning(
                        "cannot show metrics; it will try again",
                        host=self._host,
                        port=self._port,
                        error=str(error),
                        help="NEBULA_METRICS_PORT=0 shows none",
                    )
                failed = True
                await asyncio.sleep(RETRY)
                continue
            failed = False
            self.port = server.sockets[0].getsockname()[1]
            log.info("metrics", url=f"http://{self._host}:{self.port}/metrics")
            try:
                await server.serve_forever()
            finally:
                self.port = None
                server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of one connection."""
        self._open += 1
        try:
            async with asyncio.timeout(SECONDS):
                if self._open > MOST:
                    writer.write(_answer(503, "Service Unavailable", b"too many connections\n"))
                else:
                    writer.write(await self._answer(await reader.readuntil(b"\r\n\r\n")))
                await writer.drain()
                writer.write_eof()
                await reader.read(HEAD)  # so that the other end has the answer before it sees an error
        except asyncio.LimitOverrunError:
            writer.write(_answer(431, "Request Header Fields Too Large", b"the headers are too large\n"))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()  # the client has left, or takes too long, and may never read what is left
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: bytes) -> bytes:
        line, _, _ = head.partition(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _answer(400, "Bad Request", b"this is no request of HTTP/1\n")
        if words[1].partition(b"?")[0] != b"/metrics":
            return _answer(404, "Not Found", b"there is only /metrics\n")
        if words[0] != b"GET":
            return _answer(405, "Method Not Allowed", b"only GET\n", "Allow: GET\r\n")
        return _answer(200, "OK", await asyncio.to_thread(self._text), content_type=CONTENT_TYPE)


def _answer(
    status: int, phrase: str, body: bytes, more: str = "", content_type: str = "text/plain; charset=utf-8"
) -> bytes:
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        f"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode() + body
