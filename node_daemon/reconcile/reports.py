"""What this node sees of each VM, and what it refuses, told durably: when it changes, and in full now and then."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Literal, NamedTuple, Protocol

from nats.aio.client import Client
from nats.errors import Error as NatsError

from domain.base import Resources
from domain.contract import MOST_ADDRESSES, Desired, NodeReport, Power, RefusedDocument, Report, ReportError, Wanted
from domain.guest import AddressSource
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.reconcile.features import Refused
from node_daemon.reconcile.resets import Count
from runtime import logs, subjects
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import end, happens

log = logs.get(__name__)

#: Seconds that a step must last to be worth a report of its own.
QUIET = 0.5
#: Seconds between two tries while the bus is away.
RETRY = Backoff(first=0.25, last=5.0)
#: Seconds to wait for the stream's acknowledgement.
ACK_SECONDS = 5.0


class Stamp(NamedTuple):
    """What every report says of itself."""

    node: str
    lease: int
    sequence: int
    at: datetime


class News(Protocol):
    """What is to be told of one thing. `step` is set while the daemon works on it."""

    @property
    def kind(self) -> str: ...

    @property
    def step(self) -> str | None: ...

    def report(self, id_: str, stamp: Stamp) -> Report: ...


class Key(NamedTuple):
    kind: str
    id: str


@dataclass(frozen=True)
class Seen:
    """What is to be told of one VM. `desired` is None where its document cannot be read here."""

    epoch: int
    power: Power
    desired: Desired | None = None
    asked_boots: int | None = None
    boots: int = 0
    size: Resources | None = None
    addresses: tuple[AddressSource, ...] | None = None
    cause: Literal["guest", "crashed", "watchdog"] | None = None
    forced: bool = False
    host_boot: str | None = None
    resets: int = 0
    watchdog_resets: int = 0
    step: str | None = None
    error: ReportError | None = None
    kind: ClassVar[str] = "vm"

    def report(self, id_: str, stamp: Stamp) -> NodeReport:
        sources = self.addresses if self.addresses is None else self.addresses[:MOST_ADDRESSES]
        return NodeReport(
            vm=id_,
            node=stamp.node,
            epoch=self.epoch,
            lease=stamp.lease,
            sequence=stamp.sequence,
            at=stamp.at,
            power=self.power,
            desired=self.desired,
            asked_boots=self.asked_boots,
            boots=self.boots,
            size=self.size,
            addresses=tuple(one.address for one in sources or ()),
            address_sources=sources,
            cause=self.cause,
            forced=self.forced,
            host_boot=self.host_boot,
            resets=self.resets,
            watchdog_resets=self.watchdog_resets,
            step=self.step,
            error=self.error,
        )


@dataclass(frozen=True)
class NotDone:
    """What is to be told of a thing of a kind that this daemon does not know."""

    kind: str
    epoch: int
    error: ReportError
    step: None = None

    def report(self, id_: str, stamp: Stamp) -> RefusedDocument:
        about = {"kind": self.kind, "id": id_, "epoch": self.epoch, "error": self.error}
        return RefusedDocument.model_validate({**about, **stamp._asdict()})


def not_done(document: Refused, power: Power) -> News:
    """What a refused document amounts to. `power` is what there is of it, where it is a VM."""
    if document.kind == Seen.kind:
        return Seen(epoch=document.epoch, power=power, error=document.error)
    return NotDone(document.kind, document.epoch, document.error)


def seen(
    want: Wanted,
    have: Have,
    *,
    addresses: tuple[AddressSource, ...] | None = None,
    count: Count | None = None,
    step: str | None = None,
    error: ReportError | None = None,
) -> Seen:
    """What a look at a VM amounts to.

    A VM that is off or absent *with* a step is on its way; without one it stays so, and that is final. `step` tells
    nothing of a domain that runs, unless it is to end.
    """
    on = have.power is Power.ON
    cause = "watchdog" if have.cause is not None and count is not None and count.ended else have.cause
    return Seen(
        epoch=want.epoch,
        power=have.power,
        desired=want.desired,
        asked_boots=want.boots,
        boots=have.boots if on or have.power is Power.PAUSED else 0,
        size=have.size if on else None,
        addresses=addresses if on else None,
        cause=cause if have.power is Power.OFF and step is None else None,
        forced=have.forced and have.power is Power.OFF and step is None,
        host_boot=(have.host_boot or None) if on else None,
        resets=count.resets if on and count is not None else 0,
        watchdog_resets=count.watchdog if on and count is not None else 0,
        step=None if on and want.desired is Desired.ON and have.boots >= want.boots else step,
        error=error,
    )


class Reports:
    """Publishes to NEBULA_REPORTS under one lease. `clock`: nanoseconds since it was given.

    Of each thing only the newest view matters: older ones that wait are dropped.
    """

    def __init__(self, bus: Client, node: str, lease: int, clock: Callable[[], int]) -> None:
        self._bus = bus
        self._js = bus.jetstream()
        self._node = node
        self._lease = lease
        self._clock = clock
        self._shown: dict[Key, News] = {}
        self._sequences: dict[Key, int] = {}
        self._waiting: dict[Key, News] = {}
        self._fresh: dict[Key, asyncio.Event] = {}
        self._senders: dict[Key, asyncio.Task[None]] = {}
        self._away = False

    def shown(self, vm: str) -> Seen | None:
        """What was last said of a VM, or is about to be."""
        what = self._shown.get(Key(Seen.kind, vm))
        return what if isinstance(what, Seen) else None

    def show(self, id_: str, what: News) -> None:
        """Report it, if it says anything new. Returns at once."""
        key = Key(what.kind, id_)
        if self._shown.get(key) != what:
            self._shown[key] = what
            self._post(key, what)

    def repeat(self) -> None:
        """Report everything again."""
        for key, what in self._shown.items():
            self._post(key, what)

    def forget(self, kind: str, id_: str) -> None:
        """Say nothing more of a thing."""
        for book in (self._shown, self._waiting, self._sequences):
            book.pop(Key(kind, id_), None)

    async def close(self) -> None:
        await end(self._senders.values())

    def _post(self, key: Key, what: News) -> None:
        self._waiting[key] = what
        self._fresh.setdefault(key, asyncio.Event()).set()
        if key not in self._senders:
            task = asyncio.create_task(self._send(key), name=f"report {key.kind} {key.id}")
            self._senders[key] = task

    async def _send(self, key: Key) -> None:
        """Send what waits for this thing, one after the other, until nothing does."""
        fresh = self._fresh[key]
        try:
            while key in self._waiting:
                fresh.clear()
                if self._waiting[key].step is not None and await happens(fresh, QUIET):
                    continue  # over before it was worth telling
                await self._publish(key)
        finally:
            del self._senders[key], self._fresh[key]

    async def _publish(self, key: Key) -> None:
        pauses = RETRY.pauses()
        while (what := self._waiting.get(key)) is not None:
            sequence = max(self._sequences.get(key, 0) + 1, self._clock())
            self._sequences[key] = sequence
            report = what.report(key.id, Stamp(self._node, self._lease, sequence, datetime.now(UTC)))
            try:
                await self._js.publish(
                    subjects.report(self._node, *key), report.model_dump_json().encode(), timeout=ACK_SECONDS
                )
            except (NatsError, TimeoutError) as error:
                if not self._away:
                    log.warning("reports are not acknowledged", error=repr(error))
                self._away = True
                await asyncio.sleep(next(pauses))
                continue
            if self._away:
                log.info("reports are acknowledged again")
            self._away = False
            if self._waiting.get(key) is what:
                del self._waiting[key]
            return
