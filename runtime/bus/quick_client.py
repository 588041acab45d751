"""nats-py's client, with faster headers, requests and answers, and without what makes it hang or fail silently."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.client import NO_RESPONDERS_STATUS, Client, Srv
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport
from nats.errors import (
    AuthorizationError,
    ConnectionDrainingError,
    Error as NatsError,
    NoRespondersError,
    TimeoutError as NatsTimeout,
)
from nats.js import JetStreamContext
from nats.js.api import Header
from nats.protocol.command import hpub_cmd, pub_cmd

from runtime.bus.accounts.table import API
from runtime.bus.headers import header_block, parsed
from runtime.bus.login import EXPIRED
from runtime.bus.pace import Pace
from runtime.bus.transport import TcpStream

#: Requests without an answer yet, up to which a plain one is written by itself.
FEW = 8
#: Bytes that are written and not sent yet, from which on messages wait in nats-py's buffer, which is limited.
MOST_UNREAD = 64 * 1024


class QuickClient(Client):
    """nats-py's client, with faster headers and requests.

    Headers are decoded (`headers.py`) and encoded as a block instead of one by one. Unusual headers (a line break in a
    value) are left to nats-py. A message to which an answer is awaited is written immediately, and a request waits for
    one future only: nats-py uses a task and futures for both, which costs turns of the event loop. nats-py's task
    writes what nobody waits for, and plain requests while there are many: many messages in one system call.
    """

    #: the id of the subscription for the answers to all requests
    _answers: int | None = None
    #: the name of the JetStream API
    api = API
    #: whether the streams are in another account, where this connection cannot create consumers
    imports = False
    #: whether the bus has accounts
    accounts = False
    #: whether a server without TLS is refused
    only_tls = False

    def __init__(self) -> None:
        super().__init__()
        #: what gets the headers and bodies of a subscription as bytes, by its id (`bulk.py`)
        self.collecting: dict[int, Callable[[bytes, bytes], None]] = {}

    def jetstream(self, **options: Any) -> JetStreamContext:
        return super().jetstream(**{"prefix": self.api, **options})

    async def _connect_to_server(self, s: Srv) -> None:
        await super()._connect_to_server(s)
        if type(self._transport) is TcpTransport:
            self._transport = TcpStream(self._transport, self._hear)

    def _hear(self) -> None:
        """Any bytes from the server show that it lives. Its answer to a ping comes after all that it sent before, which
        may take a busy process longer than the pings that may be outstanding.
        """
        self._pings_outstanding = 0

    async def _process_connect_init(self) -> None:
        """Abandon a connection whose TLS failed: nats-py would wait for ever until it is closed."""
        try:
            await super()._process_connect_init()
        except (OSError, TimeoutError):
            writer = getattr(self._transport, "_io_writer", None)
            if writer is not None:
                writer.transport.abort()
            self._transport = None
            raise

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Refuse a server that offers no TLS where it is needed: nats-py would send our credentials in clear text."""
        if self.only_tls and initial_connection and not info.get("tls_required"):
            raise NatsError("it offers no TLS")
        await super()._process_info(info, initial_connection)

    async def _process_err(self, error: str) -> None:
        """Connect again if our credential has expired: its file may have a newer one."""
        expired = EXPIRED in error.lower()
        await (self._process_op_err(AuthorizationError()) if expired else super()._process_err(error))

    async def _request_new_style(
        self, subject: str, payload: bytes, timeout: float = 1, headers: dict[str, Any] | None = None
    ) -> Msg:
        """Send a request, and return its answer. Raises nats.errors.TimeoutError.

        nats-py makes the id digit by digit, and waits for a second future that waits for the answer.
        """
        prefix = await self.inbox()
        token = os.urandom(12).hex()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Msg] = loop.create_future()
        self._resp_map[token] = answer
        try:
            await self.publish(subject, payload, reply=prefix + token, headers=headers)
            timer = loop.call_later(timeout, expire, answer)
            try:
                return await answer
            finally:
                timer.cancel()
        finally:
            self._resp_map.pop(token, None)

    async def request_again(
        self, subject: str, payload: bytes, timeout: float, pace: Pace, headers: dict[str, Any] | None = None
    ) -> Msg:
        """Send a request that is safe to repeat, again and again at this pace until there is an answer to one of the
        messages; return it. Raises nats.errors.TimeoutError after `timeout` seconds, and NoRespondersError.
        """
        prefix = await self.inbox()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Msg] = loop.create_future()
        #: when each message was sent, by the last part of its inbox
        sent: dict[str, float] = {}
        pauses = pace.pauses()
        repeating: set[asyncio.Task[None]] = set()
        again: asyncio.TimerHandle

        async def send() -> None:
            token = os.urandom(12).hex()
            self._resp_map[token] = answer
            sent[token] = loop.time()
            await self.publish(subject, payload, reply=prefix + token, headers=headers)

        def repeat() -> None:
            nonlocal again
            again = loop.call_later(next(pauses), repeat)
            repeating.add(loop.create_task(_unless_disconnected(send)))

        again = loop.call_later(next(pauses), repeat)
        timer = loop.call_later(timeout, expire, answer)
        try:
            await send()
            message = await answer
        finally:
            timer.cancel()
            again.cancel()
            for task in repeating:
                task.cancel()
            for token in sent:
                self._resp_map.pop(token, None)
        if message.headers and message.headers.get(Header.STATUS) == NO_RESPONDERS_STATUS:
            raise NoRespondersError
        pace.note(loop.time() - sent[message.subject.removeprefix(prefix)])
        return message

    async def inbox(self) -> str:
        """The beginning of the inboxes of all requests."""
        if self.is_draining_pubs:
            raise ConnectionDrainingError
        if not self._resp_sub_prefix:
            await self._init_request_sub()
        assert self._resp_sub_prefix is not None
        return self._resp_sub_prefix.decode()

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        block = header_block(headers) if headers else None
        if not subject or (headers is not None and block is None):
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        command = hpub_cmd(subject, reply, block, payload) if block is not None else pub_cmd(subject, reply, payload)
        urgent = reply and (block is not None or len(self._resp_map) <= FEW)
        if urgent and not self._pending and self.is_connected and self._has_room():
            with contextlib.suppress(OSError):  # the connection has just broken: the message waits for the next one
                self._transport.write(command)  # type: ignore[union-attr]
                return
        await self._send_command(command)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    def _has_room(self) -> bool:
        """Whether the server reads what is written, so that a message need not wait in nats-py's buffer."""
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        return writer is not None and writer.transport.get_write_buffer_size() < MOST_UNREAD

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Write waiting messages first. nats-py sends the ping before them, so its `flush` may end too early.

        Raises OSError if the connection has just broken, but not for nats-py's own pings, whose task would fail.
        """
        try:
            if self._pending and self.is_connected and self._transport:
                self._transport.writelines(self._pending)
                self._pending = []
                self._pending_data_size = 0
            await super()._send_ping(future)
        except OSError:
            if future is not None:
                raise

    async def close(self) -> None:
        """Close the connection. Never raises: failed writes do not matter any more."""
        if not self.is_connected:
            self._pending.clear()
            self._pending_data_size = 0
        with contextlib.suppress(NatsError, OSError, RuntimeError):
            await super().close()

    async def _init_request_sub(self) -> None:
        await super()._init_request_sub()
        assert self._resp_sub_prefix is not None
        subject = self._resp_sub_prefix.decode() + "*"
        mine = (sid for sid, subscription in self._subs.items() if subscription.subject == subject)
        self._answers = next(mine, None)  # None if the connection was closed meanwhile

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """An answer goes to the request that waits for it; nats-py passes it through the queue and the task of a
        subscription.
        """
        if sid != self._answers:
            collect = self.collecting.get(sid)
            if collect is None:
                await super()._process_msg(sid, subject, reply, data, headers)
            else:
                collect(headers or b"", data)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        found = await self._process_headers(headers)
        await self._request_sub_callback(self._build_message(sid, subject, reply, data, found))

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """Never raises: an exception here would silently stop nats-py's reading of this connection."""
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


async def _unless_disconnected(send: Callable[[], Awaitable[None]]) -> None:
    """Send one more message. If that fails, the answer to an earlier one may still come."""
    with contextlib.suppress(NatsError, OSError):
        await send()


def expire(answer: asyncio.Future[Msg]) -> None:
    """End the wait for an answer with a time-out."""
    if not answer.done():
        answer.set_exception(NatsTimeout())


async def publish_bytes(nc: Client, subject: bytes, reply: str, block: bytes, payload: bytes) -> None:
    """Publish a message from bytes. Subject and headers need not be text."""
    head = b"HPUB %b %b %d %d\r\n" % (subject, reply.encode(), len(block), len(block) + len(payload))
    await nc._send_command(head + block + payload + b"\r\n")
    await nc._flush_pending()
