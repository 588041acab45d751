"""The reports of a node: the state of each VM, and each refused document. A report is sent when its content changes,
and again until the stream has acknowledged it. From time to time reports are repeated (`agreement.py` says which).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Container, Iterator, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Literal, NamedTuple, Protocol

from nats.aio.client import Client
from nats.errors import Error as NatsError

from domain.base import Resources
from domain.contract import MOST_ADDRESSES, Desired, NodeReport, Power, RefusedDocument, Report, ReportError, Wanted
from domain.contract.known import fact
from domain.guest import AddressSource
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.reconcile.features import Refused
from node_daemon.reconcile.resets import Count
from runtime import logs, subjects
from runtime.node_keys import REPORT, signed
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import end, happens

log = logs.get(__name__)

#: A step is reported only if it lasts longer than so many seconds.
QUIET = 0.5
#: Seconds between two tries while the bus is away.
RETRY = Backoff(first=0.25, last=5.0)
#: Seconds to wait for the stream's acknowledgement.
ACK_SECONDS = 5.0


#: The power states that the log should know of a VM at rest.
SEEN = (Power.ON, Power.PAUSED, Power.SUSPENDED)
#: How often it is reported that nothing of a deleted VM is left, unless handlers await that report.
LAST_REPORTS = 3


class Stamp(NamedTuple):
    """The fields that every report has: its node and lease, its sequence within the lease, and its time."""

    node: str
    lease: int
    sequence: int
    at: datetime


class Status(Protocol):
    """The content of a report about one resource. `step` is set while the daemon works on it."""

    @property
    def kind(self) -> str: ...

    @property
    def step(self) -> str | None: ...

    def report(self, id_: str, stamp: Stamp) -> Report: ...


class Key(NamedTuple):
    kind: str
    id: str


@dataclass(frozen=True)
class VmStatus:
    """The content of a report about one VM. `desired` is None if this daemon cannot read its document."""

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

    @property
    def removed(self) -> bool:
        """Whether nothing of a deleted VM is left."""
        gone = self.power is Power.ABSENT and self.desired is Desired.ABSENT
        return gone and self.step is None and self.error is None

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
class RefusedStatus:
    """The content of a report about a resource of a kind that this daemon does not know."""

    kind: str
    epoch: int
    error: ReportError
    step: None = None

    def report(self, id_: str, stamp: Stamp) -> RefusedDocument:
        about = {"kind": self.kind, "id": id_, "epoch": self.epoch, "error": self.error}
        return RefusedDocument.model_validate({**about, **stamp._asdict()})


def refused_status(document: Refused, power: Power) -> Status:
    """The status of a refused document. `power`: the power state of its domain, if it is a document of a VM."""
    if document.kind == VmStatus.kind:
        return VmStatus(epoch=document.epoch, power=power, error=document.error)
    return RefusedStatus(document.kind, document.epoch, document.error)


def vm_status(
    want: Wanted,
    have: Have,
    *,
    addresses: tuple[AddressSource, ...] | None = None,
    count: Count | None = None,
    step: str | None = None,
    error: ReportError | None = None,
) -> VmStatus:
    """The status of a VM.

    A VM that is off or absent *with* a step will change; without a step it stays so. For a domain that runs as wanted,
    `step` is left out.
    """
    on = have.power is Power.ON
    cause = "watchdog" if have.cause is not None and count is not None and count.ended else have.cause
    return VmStatus(
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
    """Publishes to the stream NEBULA_REPORTS under one lease. `clock`: nanoseconds since the lease was granted. `key`:
    of the node, which signs the reports.

    For each resource only the newest status is sent; an older one that still waits is dropped.
    """

    def __init__(self, bus: Client, node: str, lease: int, clock: Callable[[], int], key: bytes | None = None) -> None:
        self._key = key
        self._bus = bus
        self._js = bus.jetstream()
        self._node = node
        self._lease = lease
        self._clock = clock
        self._newest: dict[Key, Status] = {}
        self._sequences: dict[Key, int] = {}
        self._waiting: dict[Key, Status] = {}
        self._posted: dict[Key, asyncio.Event] = {}
        self._senders: dict[Key, asyncio.Task[None]] = {}
        #: how often the stream has acknowledged the newest status of a resource
        self._acknowledged: Counter[Key] = Counter()
        self._bus_fails = False

    def newest(self, vm: str) -> VmStatus | None:
        """The newest status of a VM, sent or waiting to be sent."""
        status = self._newest.get(Key(VmStatus.kind, vm))
        return status if isinstance(status, VmStatus) else None

    def show(self, id_: str, status: Status) -> None:
        """Send a report in the background, if the status has changed."""
        key = Key(status.kind, id_)
        if self._newest.get(key) != status:
            self._newest[key] = status
            del self._acknowledged[key]
            self._post(key, status)

    def repeat(self, vms: Set[str] | None = None) -> None:
        """Send the reports about these VMs again. None: all reports, but those of removed VMs a few times only."""
        for key, status in self._newest.items():
            if vms is not None:
                again = key.id in vms and key.kind == VmStatus.kind
            else:
                again = not self.is_removed(key.id) or self._acknowledged[key] < LAST_REPORTS
            if again:
                self._post(key, status)

    def is_removed(self, vm: str) -> bool:
        """Whether nothing of a deleted VM is left, and the stream has that report."""
        status = self.newest(vm)
        return status is not None and status.removed and self._acknowledged[Key(VmStatus.kind, vm)] > 0

    def forget_removed(self, wanted: Container[str]) -> None:
        """Forget the removed VMs that have no document any more."""
        for key in list(self._newest):
            if key.id not in wanted and self.is_removed(key.id):
                self.forget(*key)

    def facts(self, without: Set[str]) -> Iterator[int]:
        """The facts that the log should know of the VMs, without these. See `domain/contract/known.py`."""
        for key, status in self._newest.items():
            if isinstance(status, VmStatus) and status.power in SEEN and key.id not in without:
                addresses = [one.address for one in (status.addresses or ())[:MOST_ADDRESSES]]
                yield fact(key.id, status.epoch, status.power, status.boots, status.resets, addresses)

    def forget(self, kind: str, id_: str) -> None:
        """Send no more reports about a resource."""
        for by_key in (self._newest, self._waiting, self._sequences, self._acknowledged):
            by_key.pop(Key(kind, id_), None)

    async def close(self) -> None:
        await end(self._senders.values())

    def _post(self, key: Key, status: Status) -> None:
        self._waiting[key] = status
        self._posted.setdefault(key, asyncio.Event()).set()
        if key not in self._senders:
            task = asyncio.create_task(self._send(key), name=f"report {key.kind} {key.id}")
            self._senders[key] = task

    async def _send(self, key: Key) -> None:
        """Send the waiting reports about this resource, one after the other, until none waits."""
        posted = self._posted[key]
        try:
            while key in self._waiting:
                posted.clear()
                if self._waiting[key].step is not None and await happens(posted, QUIET):
                    continue  # a newer status came before the step had to be reported
                await self._publish(key)
        finally:
            del self._senders[key], self._posted[key]

    async def _publish(self, key: Key) -> None:
        pauses = RETRY.pauses()
        while (status := self._waiting.get(key)) is not None:
            sequence = max(self._sequences.get(key, 0) + 1, self._clock())
            self._sequences[key] = sequence
            report = status.report(key.id, Stamp(self._node, self._lease, sequence, datetime.now(UTC)))
            subject, body = subjects.report(self._node, *key), report.model_dump_json().encode()
            headers = signed(self._key, REPORT, subject, body)
            try:
                await self._js.publish(subject, body, timeout=ACK_SECONDS, headers=headers)
            except (NatsError, TimeoutError) as error:
                if not self._bus_fails:
                    log.warning("reports are not acknowledged; they will be sent again", error=repr(error))
                self._bus_fails = True
                await asyncio.sleep(next(pauses))
                continue
            if self._bus_fails:
                log.info("reports are acknowledged again")
            self._bus_fails = False
            if self._newest.get(key) == status:
                self._acknowledged[key] += 1
            if self._waiting.get(key) is status:
                del self._waiting[key]
            return
