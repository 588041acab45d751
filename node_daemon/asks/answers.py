"""Answers requests about the guests of this node, their consoles, and what they use. A request never changes the
desired state of a VM.

A request arrives on `nebula.nodes.<node>.asks.<verb>` as JSON `{"vm": …, …}`. The answer is JSON, `{"ok": …}` or
`{"problem": …}` as for a command; or raw bytes, described by its headers. A node that has its key answers only gateways
(`proofs.py`), and its answers have a MAC (`signing.py`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from domain.contract import Connection, ConsoleLog, HostUsageQuestion, Question, UsageQuestion, UsageWindow
from domain.guest import Guest
from node_daemon.asks.proofs import AskProofs, NeedsChallenge
from node_daemon.asks.sessions import ConnectionRequest, Denied, SessionKey, Sessions
from node_daemon.asks.signing import SigningResponder, session_keys
from node_daemon.hypervisor import console_log
from node_daemon.hypervisor.hypervisor import AgentMissing, AgentSilent, Hypervisor, Refused, Unreachable
from node_daemon.storage.storage import DiskStore
from node_daemon.usage.sampler import Sampler
from runtime import logs, subjects
from runtime.ask_keys import CHALLENGE
from runtime.bus import replies
from runtime.bus.replies import Refusal
from runtime.bus.responder import Answer, Responder
from runtime.tasks.tasks import end

log = logs.get(__name__)

#: Maximum number of bytes of a console log in one answer: well below the maximum size of a message.
PIECE = 256 * 1024
#: Seconds between checks for new output while a request waits for it.
LOOK = 0.25
#: Maximum number of requests that are answered concurrently.
MOST_AT_ONCE = 256
#: Maximum number of guests whose agents are asked concurrently. Agents that hang delay the others only for a short
#: time.
MOST_GUESTS = 12


class Answers:
    """Answers the requests to one node, while `serve` runs. `proofs` None: whoever asks is answered."""

    def __init__(
        self,
        bus: Client,
        node: str,
        disks: DiskStore,
        hypervisor: Hypervisor,
        proofs: AskProofs | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self._sampler = sampler
        self._proofs = proofs or AskProofs()
        self._bus = bus
        self._responder = Responder(bus, explain)
        self._node = node
        self._disks = disks
        self._hypervisor = hypervisor
        self._sessions = Sessions(bus, node, hypervisor)
        self._running: set[asyncio.Task[None]] = set()
        self._guests: dict[str, asyncio.Task[Guest]] = {}
        self._verbs: Mapping[str, Callable[[bytes, SessionKey | None], Awaitable[Answer]]] = {
            "console-log": self._console_log,
            "console": self._console,
            "vnc": self._display,
            "guest": self._guest,
            "usage": self._usage,
            "host-usage": self._host_usage,
        }

    async def serve(self) -> None:
        """Answer until cancelled."""
        subscription = await self._bus.subscribe(subjects.asks_of(self._node), cb=self._accept)
        try:
            await asyncio.Event().wait()
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()
            await end([*self._running, *self._guests.values()])
            await self._sessions.close()

    async def _accept(self, msg: Msg) -> None:
        if not self._responder.accepts(msg):
            return
        if len(self._running) >= MOST_AT_ONCE:
            detail = "the node answers too many requests now; try again"
            busy = Refusal(code="node_busy", detail=detail, status=503)
            await self._responder.answer(msg, replies.refused(busy))
            return
        task = asyncio.create_task(self._answer(msg))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, msg: Msg) -> None:
        try:
            key = self._proofs.check(msg)
        except NeedsChallenge as error:
            headers = {CHALLENGE: self._proofs.new_challenge()}
            await self._responder.answer(msg, replies.refused(error.refusal), headers)
        except Denied as error:
            await self._responder.answer(msg, replies.refused(error.refusal))
        else:
            responder = SigningResponder(self._bus, explain, key)
            await responder.carry_out(msg, partial(self._find_answer, key=key))

    async def _find_answer(self, msg: Msg, key: bytes | None) -> Answer:
        verb = msg.subject.rsplit(".", 1)[-1]
        if verb not in self._verbs:
            raise Denied("unknown_question", f"this node does not know the request {verb}: upgrade its daemon", 501)
        try:
            return await self._verbs[verb](msg.data, session_keys(key, msg))
        except OSError as error:
            log.warning("cannot answer a request", verb=verb, error=str(error))
            raise Denied("node_failed", f"{verb}: {error}", 503) from error

    async def _console_log(self, question: bytes, _: SessionKey | None) -> Answer:
        request = ConsoleLog.model_validate_json(question)
        newest = self._disks.console(request.vm)
        clock = asyncio.get_running_loop()
        deadline = clock.time() + request.wait
        while True:
            piece = await asyncio.to_thread(console_log.read, newest, request.after, request.tail, PIECE)
            if piece is None:
                raise Denied(
                    "no_console_log",
                    "the VM has no console log: it has not run yet, or its node stores no console logs",
                    404,
                )
            if piece.data or clock.time() >= deadline:
                return Answer(piece.data, {"Nebula-Cursor": piece.cursor, "Nebula-More": str(piece.more).lower()})
            await asyncio.sleep(LOOK)

    async def _console(self, question: bytes, key: SessionKey | None) -> Answer:
        request = Connection.model_validate_json(question)
        await self._sessions.console(
            ConnectionRequest("console", request.vm, request.session, request.actor, request.force, key)
        )
        return Answer(replies.accepted({}))

    async def _display(self, question: bytes, key: SessionKey | None) -> Answer:
        request = Connection.model_validate_json(question)
        await self._sessions.display(ConnectionRequest("vnc", request.vm, request.session, request.actor, key=key))
        return Answer(replies.accepted({}))

    async def _guest(self, question: bytes, _: SessionKey | None) -> Answer:
        vm = Question.model_validate_json(question).vm
        try:
            guest = await asyncio.shield(self._ask_agent(vm))
        except AgentMissing as error:
            detail = (
                "no agent runs in the guest: install the package qemu-guest-agent in it, or wait until it has booted"
            )
            raise Denied("guest_agent_missing", detail) from error
        except AgentSilent as error:
            detail = "the guest's agent does not answer in time: try again, or restart qemu-guest-agent in the guest"
            raise Denied("guest_agent_silent", detail) from error
        except Refused as error:
            detail = f"the guest cannot report: {error.detail}; start the VM if it does not run"
            raise Denied("guest_unavailable", detail) from error
        except Unreachable as error:
            raise Denied("node_failed", f"libvirt does not answer: {error}", 503) from error
        return Answer(replies.accepted(guest))

    async def _usage(self, question: bytes, _: SessionKey | None) -> Answer:
        request = UsageQuestion.model_validate_json(question)
        return await self._series(request.vm, request)

    async def _host_usage(self, question: bytes, _: SessionKey | None) -> Answer:
        return await self._series(None, HostUsageQuestion.model_validate_json(question))

    async def _series(self, vm: str | None, window: UsageWindow) -> Answer:
        if self._sampler is None:
            raise Denied("usage_not_kept", "this node takes no samples of the usage: NEBULA_USAGE_SECONDS is 0 there")
        return Answer(replies.accepted(await self._sampler.series_of(vm, window.seconds, window.points)))

    def _ask_agent(self, vm: str) -> asyncio.Task[Guest]:
        """The running request to a guest's agent. Concurrent callers share one request and its
        answer. Raises Denied.
        """
        if (task := self._guests.get(vm)) is None:
            if len(self._guests) >= MOST_GUESTS:
                raise Denied("node_busy", "the node waits for the agents of too many guests now; try again", 503)
            task = self._guests[vm] = asyncio.create_task(self._hypervisor.guest(vm), name=f"guest {vm}")
            task.add_done_callback(lambda _: self._guests.pop(vm, None))
        return task


def explain(error: Exception) -> Refusal | None:
    return error.refusal if isinstance(error, Denied) else None
