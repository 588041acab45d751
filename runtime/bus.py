"""The connection to NATS: patient at start, back by itself, and told about once per change rather than per try."""

from collections.abc import Mapping
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol.command import hpub_cmd

from runtime import logs
from runtime.headers import fit, parsed
from runtime.masking import masked
from runtime.patience import patiently
from runtime.settings import Common

log = logs.get(__name__)


class QuickClient(Client):
    """nats-py's client, quicker at what the log is used for: headers, and questions that somebody waits for.

    Headers are decoded (`headers.py`) and encoded as a block instead of each name and value; what is not plain (a line
    break in a value) is left to the original to send. A message that asks for an answer is written at once where
    nothing waits to be written: the original leaves that to a task, which takes a turn of the loop.
    """

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        block = header_block(headers) if headers and subject else None
        if block is None:
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        command = hpub_cmd(subject, reply, block, payload)
        if reply and not self._pending and self.is_connected and self._transport:
            self._transport.write(command)
            return
        await self._send_command(command)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """Never raises: what a publisher wrote would end this connection's reading without a word."""
        return parsed(bytes(headers)) if headers else None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return Msg(
            _client=self,
            subject=subject.decode(errors="replace"),
            reply=reply.decode(errors="replace"),
            data=data,
            headers=headers,
            _sid=sid,
        )


def header_block(headers: Mapping[str, str]) -> bytes | None:
    """The headers as NATS sends them; None where nats-py should see to them: a name that it may refuse, a value that
    it would change."""
    if not fit(headers.keys()):
        return None
    # Joined, not formatted: nats-py's own names are members of an Enum, which format() turns into something else.
    lines = "\r\n".join([name + ": " + value.strip() for name, value in headers.items()])
    if lines.count("\r") + 1 != len(headers) or lines.count("\n") + 1 != len(headers):
        return None
    return f"NATS/1.0\r\n{lines}\r\n\r\n".encode()


async def publish_bytes(nc: Client, subject: bytes, reply: str, block: bytes, payload: bytes) -> None:
    """Publish a message byte by byte, as somebody else may have made it: subject and headers need not be text."""
    head = b"HPUB %b %b %d %d\r\n" % (subject, reply.encode(), len(block), len(block) + len(payload))
    await nc._send_command(head + block + payload + b"\r\n")
    await nc._flush_pending()


class Teller:
    """Says each trouble of a connection once, until it is over."""

    def __init__(self) -> None:
        self._told = ""

    async def trouble(self, error: Exception) -> None:
        text = repr(error)
        if text != self._told:
            log.warning("bus trouble", error=text)
        self._told = text

    async def lost(self) -> None:
        log.warning("bus lost; reconnecting")

    async def back(self) -> None:
        self._told = ""
        log.warning("bus is back")


async def connect(settings: Common, role: str, *, patient: bool = True) -> Client:
    """A connection that reconnects for ever. While the server is away at start, says so and tries on (`patient`).

    Raises nats.errors.Error or OSError when not patient and nobody answers.
    """
    if not patient:
        return await _connected(settings, role)
    return await patiently(f"NATS at {masked(settings.nats_url)}", lambda: _connected(settings, role))


async def _connected(settings: Common, role: str) -> Client:
    teller = Teller()
    connection = QuickClient()
    await connection.connect(
        servers=[url.strip() for url in settings.nats_url.split(",")],
        name=f"nebula-{role}",
        user=settings.nats_user,
        password=settings.nats_password,
        allow_reconnect=True,
        max_reconnect_attempts=1,  # at first: with -1 the client would try for ever, and say nothing, in here
        reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; a fraction works, the annotation says int
        connect_timeout=2,
        ping_interval=5,
        max_outstanding_pings=2,
        pending_size=32 * 1024 * 1024,
        error_cb=teller.trouble,
        disconnected_cb=teller.lost,
        reconnected_cb=teller.back,
    )
    connection.options["max_reconnect_attempts"] = -1
    return connection
