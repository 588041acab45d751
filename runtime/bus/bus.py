"""The connection to NATS: waits for the server at start, reconnects by itself, logs once per change, not per try."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import (
    AuthorizationError,
    ConnectionDrainingError,
    Error as NatsError,
    NoServersError,
    StaleConnectionError,
    TimeoutError as NatsTimeout,
)
from nats.protocol.command import hpub_cmd
from nats.protocol.parser import AUTHORIZATION_VIOLATION

from runtime import logs
from runtime.bus.headers import fit, parsed
from runtime.settings import Common
from runtime.tasks.patience import CannotRun, is_there, one_line, patiently, waits
from runtime.text.masking import masked

log = logs.get(__name__)


class QuickClient(Client):
    """nats-py's client, quicker at what the log is used for: headers, and questions that somebody waits for.

    Headers are decoded (`headers.py`) and encoded as a block instead of each name and value; what is not plain (a line
    break in a value) is left to the original to send. A message that asks for an answer is written at once where
    nothing waits to be written: the original leaves that to a task, which takes a turn of the loop. So does its waiting
    for the answer.
    """

    async def _request_new_style(
        self, subject: str, payload: bytes, timeout: float = 1, headers: dict[str, Any] | None = None
    ) -> Msg:
        """One question and its answer. Raises nats.errors.TimeoutError.

        The original draws an id digit by digit, and waits for a second future that waits for the answer.
        """
        if self.is_draining_pubs:
            raise ConnectionDrainingError
        if not self._resp_sub_prefix:
            await self._init_request_sub()
        assert self._resp_sub_prefix is not None
        token = os.urandom(12).hex()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Msg] = loop.create_future()
        self._resp_map[token] = answer
        try:
            await self.publish(subject, payload, reply=self._resp_sub_prefix.decode() + token, headers=headers)
            timer = loop.call_later(timeout, expire, answer)
            try:
                return await answer
            finally:
                timer.cancel()
        finally:
            self._resp_map.pop(token, None)

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
            with contextlib.suppress(RuntimeError):  # uvloop's, for a connection that has just broken
                self._transport.write(command)
                return
        await self._send_command(command)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """After what waits to be written. The original overtakes that, so its `flush` may end before that was sent."""
        if self._pending and self.is_connected and self._transport:
            self._transport.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0
        await super()._send_ping(future)

    async def close(self) -> None:
        """Never raises: when a connection is closed, writes that fail no longer matter."""
        if not self.is_connected:
            self._pending.clear()
            self._pending_data_size = 0
        with contextlib.suppress(NatsError, OSError, RuntimeError):
            await super().close()

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """Never raises: an exception here would silently end the reading of this connection."""
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


def expire(answer: asyncio.Future[Msg]) -> None:
    """No answer has come in time."""
    if not answer.done():
        answer.set_exception(NatsTimeout())


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


class Connection(QuickClient):
    """A role's: it reconnects for ever, and says once when it begins to wait for the server and when that is over."""

    def __init__(self, settings: Common, role: str, *, silent: bool = False) -> None:
        super().__init__()
        self._silent = silent
        self.what = place(settings)
        self._settings = settings
        self._role = role
        self._ended = asyncio.Event()
        self._said = ""
        self._newest: Exception | None = None

    async def open(self) -> None:
        """Try each server. Raises CannotRun when one refuses our user, nats.errors.Error or OSError otherwise."""
        settings = self._settings
        try:
            await self.connect(
                servers=settings.nats_urls,
                name=f"nebula-{self._role}",
                user=settings.nats_user,
                password=settings.nats_password,
                allow_reconnect=True,
                max_reconnect_attempts=1,  # at first: with -1 the client would try for ever, and say nothing, in here
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; a fraction works, the annotation says int
                connect_timeout=2,
                ping_interval=5,
                max_outstanding_pings=2,
                pending_size=32 * 1024 * 1024,
                error_cb=self._on_error,
                disconnected_cb=self._on_loss,
                reconnected_cb=self._on_return,
                closed_cb=self._on_end,
            )
        except NoServersError as error:
            if self._ended.is_set():
                raise refusal(self.what, self._newest) from error
            raise self._newest or error from error
        self._ended.clear()  # one of several servers refused us, and another one does not
        self.options["max_reconnect_attempts"] = -1

    async def until_ended(self) -> None:
        """Wait until nats-py gives the connection up. Raises CannotRun then.

        It does that when the server refuses our user, or closes the connection with an error of its protocol.
        """
        await self._ended.wait()
        raise refusal(self.what, self._newest)

    async def _attempt_reconnect(self) -> None:
        try:
            await super()._attempt_reconnect()
        except Exception as error:  # nobody would be told, and it would stay away for ever
            self._newest = error
            self._ended.set()

    async def _on_error(self, error: Exception) -> None:
        """What concerns one subject or one message is said here, the connection itself elsewhere."""
        if self._ended.is_set():
            return
        self._newest = error
        if refuses(error):
            self._ended.set()
        if self.is_connected and not isinstance(error, StaleConnectionError) and repr(error) != self._said:
            self._said = repr(error)
            log.warning("bus trouble", error=self._said)

    async def _on_loss(self) -> None:
        if not self.is_closed and not self._silent:
            waits(self.what, self._newest or StaleConnectionError())

    async def _on_return(self) -> None:
        self._said = ""
        if not self._silent:
            is_there(self.what)

    async def _on_end(self) -> None:
        if not self._ended.is_set():
            self._newest = self._err or self._newest
            self._ended.set()


def refuses(error: Exception | None) -> bool:
    """Whether this is a server that knows our user or password not. nats-py hands on its words only."""
    return isinstance(error, AuthorizationError) or AUTHORIZATION_VIOLATION in str(error).lower()


def refusal(what: str, error: Exception | None) -> CannotRun:
    said = one_line(error) if error is not None else "it gives no reason"
    user = " (NEBULA_NATS_USER, NEBULA_NATS_PASSWORD)" if refuses(error) else ""
    return CannotRun(f"{what} does not serve us: {said}{user}")


def place(settings: Common) -> str:
    """The addresses of the servers, without credentials."""
    return f"NATS at {masked(settings.nats_url)}"


async def connect(settings: Common, role: str, *, silent: bool = False) -> Connection:
    """A connection that reconnects for ever. While the server is away at start, says so and tries on.

    `silent`: that the server is away is said by another connection of this process.
    Raises CannotRun when the server refuses our user. `until_ended` has to be watched by whoever needs the connection.
    """

    async def attempt() -> Connection:
        connection = Connection(settings, role, silent=silent)
        await connection.open()
        return connection

    return await patiently(place(settings), attempt)
