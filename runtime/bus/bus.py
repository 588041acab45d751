"""The connection to NATS. It waits for the server at start, reconnects by itself, and logs each change once."""

import asyncio
from typing import Any

from nats.errors import NoServersError, StaleConnectionError

from runtime import logs
from runtime.bus.login import advice, login, refusal, refuses, tls_of
from runtime.bus.quick_client import QuickClient
from runtime.bus.renewed import Renewed, found
from runtime.bus.responder import INBOX
from runtime.settings import Common
from runtime.tasks.patience import CannotRun, log_answers, log_waiting, patiently
from runtime.text.masking import masked

log = logs.get(__name__)

#: Seconds between two pings, and number of them that may be without an answer: with several servers another one is
#: found after six seconds at most. A single server gets more time. It may be slow on a busy machine, and to connect to
#: it again costs more work: each node registers, and reads all its documents.
PING_SECONDS, UNANSWERED, UNANSWERED_ALONE = 2, 2, 9


class Connection(QuickClient):
    """The connection of a role. It reconnects for ever, and logs once when it is lost and once when it is back."""

    def __init__(self, settings: Common, role: str, *, silent: bool = False) -> None:
        super().__init__()
        self._silent = silent
        self.what = place(settings)
        self._tls = tls_of(settings)
        self.only_tls = self._tls is not None
        self._settings = settings
        self._role = role
        self._ended = asyncio.Event()
        self._last_logged = ""
        self._newest: Exception | None = None
        self._renewed = Renewed(self)
        self._renewing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; try each server once. Raises CannotRun if a server refuses our user, nats.errors.Error, OSError."""
        settings = self._settings
        how = login(settings)
        self.api, self.imports, self.accounts = how.api, how.imports, how.accounts
        try:
            await self.connect(
                servers=settings.nats_urls,
                name=f"nebula-{self._role}",
                **how.options,
                allow_reconnect=True,
                max_reconnect_attempts=1,  # for now: with -1 this call would try for ever without a message
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds; a fraction works
                tls=self._tls,
                connect_timeout=2,
                ping_interval=PING_SECONDS,
                max_outstanding_pings=UNANSWERED,
                pending_size=32 * 1024 * 1024,
                error_cb=self._on_error,
                disconnected_cb=self._on_loss,
                reconnected_cb=self._on_return,
                closed_cb=self._on_end,
            )
        except NoServersError as error:
            if self._ended.is_set():
                raise self._refusal() from error
            raise self._newest or error from error
        self._ended.clear()  # one server may have refused us before another one accepted us
        self.options["max_reconnect_attempts"] = -1
        if settings.nats_creds is not None:
            self._renewing = asyncio.create_task(self._renewed.keep(settings.nats_creds))

    @property
    def guests(self) -> str | None:
        """The node of whose guests this connection speaks; None: of any, or it is not that of guest-data."""
        return self._renewed.used.guests if self._renewed.used is not None else None

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        await super().close()

    async def _process_connect_init(self) -> None:
        file = self._settings.nats_creds
        self._renewed.used = found(file) if file is not None else None  # nats-py reads the file now, too
        await super()._process_connect_init()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        await super()._process_info(info, initial_connection)
        self.options["max_outstanding_pings"] = UNANSWERED if len(self._server_pool) > 1 else UNANSWERED_ALONE

    async def inbox(self) -> str:
        await self._renewed.admitted()
        return await super().inbox()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if self._renewed.answering and reply and INBOX.fullmatch(reply.decode(errors="replace")):
            self._renewed.heard(reply.decode())
        await super()._process_msg(sid, subject, reply, data, headers)

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        await super()._send_publish(subject, reply, payload, payload_size, headers)
        if self._renewed.answering:
            self._renewed.answered(subject)

    async def until_ended(self) -> None:
        """Wait until nats-py gives up the connection, then raise CannotRun.

        It gives up if the server refuses our user, or closes the connection with a protocol error.
        """
        await self._ended.wait()
        raise self._refusal()

    def _refusal(self) -> CannotRun:
        return refusal(self.what, self._newest, advice(self._settings))

    async def _attempt_reconnect(self) -> None:
        try:
            await super()._attempt_reconnect()
        except Exception as error:  # nats-py would not report it, and never reconnect
            self._newest = error
            self._ended.set()

    async def _on_error(self, error: Exception) -> None:
        """Log errors about a subject or a message. The state of the connection is logged by the other callbacks."""
        if self._ended.is_set():
            return
        self._newest = error
        if refuses(error):
            self._ended.set()
        if self.is_connected and not isinstance(error, StaleConnectionError) and repr(error) != self._last_logged:
            self._last_logged = repr(error)
            log.warning("an error on the bus", error=self._last_logged)

    async def _on_loss(self) -> None:
        if not self.is_closed and not self._silent and not self._renewed.changing:
            log_waiting(self.what, self._newest or StaleConnectionError())

    async def _on_return(self) -> None:
        self._last_logged = ""
        if not self._silent and not self._renewed.changing:
            log_answers(self.what)

    async def _on_end(self) -> None:
        if not self._ended.is_set():
            self._newest = self._err or self._newest
            self._ended.set()


def place(settings: Common) -> str:
    """The addresses of the servers, without credentials."""
    return f"NATS at {masked(settings.nats_url)}"


async def connect(settings: Common, role: str, *, silent: bool = False) -> Connection:
    """Open a connection that reconnects for ever. While no server answers at the start, it logs that and tries again.

    `silent`: do not log a lost connection, because another connection of this process does. Raises CannotRun if a
    server refuses our user. The caller has to watch `until_ended`.
    """

    async def attempt() -> Connection:
        connection = Connection(settings, role, silent=silent)
        await connection.open()
        return connection

    return await patiently(place(settings), attempt)
