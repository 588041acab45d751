"""Refused calls (401 and 403): logged, limited, and kept for auditors in a stream that all gateways share.

Only refusals are limited: a caller with a right credential is served, whatever others at its address do. The limit
protects the log and the stream. It is not what protects a secret: nobody guesses 256 bits.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import ValidationError

from gateway.access.addresses import Network, client, network_of
from gateway.access.identity import Identity
from gateway.access.limits import Buckets
from gateway.http.problems import Problem
from runtime import logs, subjects
from runtime.bus import ordered, reading
from runtime.bus.malformed import Malformed, cut
from runtime.bus.refused_calls import Refusal, of_node
from runtime.text.masking import masked
from runtime.token_text import named

log = logs.get(__name__)

#: Refusals that this gateway can show.
MOST = 5000
STATUSES = (401, 403)
#: How the codes begin of what the servers of the bus refuse.
BUS = "bus_"
#: Records of a node per minute.
MOST_OF_NODE = 120
#: The source of malformed refusals.
SOURCE = "refusals"


class Refusals:
    """What happens to refused calls. `per_minute`: refusals per address (401), and per credential (403)."""

    def __init__(self, nc: Client, per_minute: int, trusted: Sequence[Network], malformed: Malformed) -> None:
        self._nc = nc
        self._trusted = trusted
        self._malformed = malformed
        self._buckets = Buckets(per_minute)
        self._nodes = Buckets(MOST_OF_NODE)
        self._seen: deque[tuple[int, Refusal]] = deque(maxlen=MOST)
        #: refusals of the bus since the start of this process, by code
        self.of_bus: dict[str, int] = {}
        self._began = datetime.now(UTC)

    async def judge(
        self,
        problem: Problem,
        scope: Mapping[str, object],
        headers: Mapping[bytes, str],
        identity: Identity | None,
        request: str,
    ) -> Problem:
        """The answer to a call that was refused with 401 or 403: the same, or 429 if there were too many."""
        address = client(scope, headers.get(b"x-forwarded-for"), self._trusted)
        known = identity.credential if identity is not None else None
        source = f"credential {known}" if known is not None else f"address {network_of(address)}"
        seconds = self._buckets.take(source)
        if seconds:
            return too_many(problem, seconds)
        refusal = Refusal(
            at=datetime.now(UTC),
            status=problem.status,
            code=problem.code,
            address=cut(address)[:64],
            credential=known or named(headers.get(b"authorization", "")),
            actor=identity.actor if identity is not None else None,
            method=str(scope.get("method", "GET"))[:32],
            path=masked(cut(str(scope.get("path", "")))),
            request=request,
        )
        log.warning("call refused", **refusal.model_dump(mode="json", exclude={"at"}, exclude_none=True))
        await self._record(source, refusal)
        return problem

    async def _record(self, source: str, refusal: Refusal) -> None:
        subject = subjects.refusal(hashlib.sha256(source.encode()).hexdigest()[:16])
        try:
            await self._nc.publish(subject, refusal.model_dump_json(exclude_none=True).encode())
        except (NatsError, OSError) as error:
            log.warning("a refusal is not kept for auditors", error=repr(error))

    async def listen(self) -> None:
        """Record what nodes say about packets of their guests. Each message is recorded by one of the gateways."""
        await self._nc.subscribe(subjects.NODE_REFUSALS_OF_ALL, queue="refusals", cb=self._of_node)

    async def _of_node(self, msg: Msg) -> None:
        node = subjects.node_of(msg.subject)
        try:
            refusal = of_node(Refusal.model_validate_json(msg.data), node, datetime.now(UTC))
        except ValueError as error:
            self._malformed.note(SOURCE, msg.subject, error)
            return
        if self._nodes.take(node) == 0:
            await self._record(f"node {node}", refusal)

    async def run(self) -> None:
        """Follow the stream, for ever."""
        while True:
            self._seen.clear()
            try:
                async for batch in reading.follow(self._nc, subjects.REFUSALS, 0, [subjects.REFUSALS_OF_ALL], read):
                    for position, subject, body in batch:
                        self.apply(position, subject, body)
            except ordered.OtherStream as error:
                log.warning("the stream of refusals was replaced", error=str(error))

    def apply(self, position: int, subject: str, body: bytes) -> None:
        try:
            refusal = Refusal.model_validate_json(body)
        except ValidationError as error:
            self._malformed.note(SOURCE, subject, error)
            return
        self._seen.append((position, refusal))
        if refusal.code.startswith(BUS) and refusal.at >= self._began:
            self.of_bus[refusal.code] = self.of_bus.get(refusal.code, 0) + refusal.count

    def newest(self, before: int | None, filters: Mapping[str, str | None], most: int) -> list[tuple[int, Refusal]]:
        """The refusals, the newest first, with their positions in the stream. `filters`: values of fields."""
        return list(islice(self._matching(before, filters), most))

    def _matching(self, before: int | None, filters: Mapping[str, str | None]) -> Iterator[tuple[int, Refusal]]:
        for position, refusal in reversed(self._seen):
            if before is not None and position >= before:
                continue
            if all(value in (None, getattr(refusal, name)) for name, value in filters.items()):
                yield position, refusal


def read(msg: Msg, position: int, _: int) -> tuple[int, str, bytes]:
    return position, msg.subject, msg.data


def too_many(problem: Problem, seconds: int) -> Problem:
    what = "calls without a valid token" if problem.status == 401 else "calls that this credential may not make"
    detail = f"too many {what}; the last one: {problem.detail}"
    return Problem(429, "too_many_refusals", detail, headers={"Retry-After": str(seconds)})
