"""What this node sees of each VM, told durably: when it changes, and in full every now and then."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from nats.aio.client import Client
from nats.errors import Error as NatsError

from domain.base import Resources
from domain.contract import MOST_ADDRESSES, Desired, NodeReport, Power, ReportError, Wanted
from domain.guest import AddressSource
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.reconcile.resets import Count
from runtime import logs, subjects
from runtime.tasks import end, happens

log = logs.get(__name__)

#: Seconds that a step must last to be worth a report of its own.
QUIET = 0.5
#: Seconds between two tries while the bus is away: doubled from the first to the last.
FIRST_RETRY, LAST_RETRY = 0.25, 5.0
#: Seconds to wait for the stream's acknowledgement.
ACK_SECONDS = 5.0


@dataclass(frozen=True)
class Seen:
    """What is to be told of one VM. `step` is set while the daemon works on it."""

    epoch: int
    power: Power
    desired: Desired
    asked_boots: int
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

    Of each VM only the newest view matters: older ones that wait are dropped.
    """

    def __init__(self, bus: Client, node: str, lease: int, clock: Callable[[], int]) -> None:
        self._bus = bus
        self._js = bus.jetstream()
        self._node = node
        self._lease = lease
        self._clock = clock
        self._shown: dict[str, Seen] = {}
        self._sequences: dict[str, int] = {}
        self._waiting: dict[str, Seen] = {}
        self._fresh: dict[str, asyncio.Event] = {}
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._away = False

    def shown(self, vm: str) -> Seen | None:
        """What was last said of a VM, or is about to be."""
        return self._shown.get(vm)

    def show(self, vm: str, what: Seen) -> None:
        """Report it, if it says anything new. Returns at once."""
        if self._shown.get(vm) != what:
            self._shown[vm] = what
            self._post(vm, what)

    def repeat(self) -> None:
        """Report every VM again."""
        for vm, what in self._shown.items():
            self._post(vm, what)

    def forget(self, vm: str) -> None:
        """Say nothing more of a VM."""
        for book in (self._shown, self._waiting, self._sequences):
            book.pop(vm, None)

    async def close(self) -> None:
        await end(self._senders.values())

    def _post(self, vm: str, what: Seen) -> None:
        self._waiting[vm] = what
        self._fresh.setdefault(vm, asyncio.Event()).set()
        if vm not in self._senders:
            task = asyncio.create_task(self._send(vm), name=f"report {vm}")
            self._senders[vm] = task

    async def _send(self, vm: str) -> None:
        """Send what waits for this VM, one after the other, until nothing does."""
        fresh = self._fresh[vm]
        try:
            while vm in self._waiting:
                fresh.clear()
                if self._waiting[vm].step is not None and await happens(fresh, QUIET):
                    continue  # over before it was worth telling
                await self._publish(vm)
        finally:
            del self._senders[vm], self._fresh[vm]

    async def _publish(self, vm: str) -> None:
        delay = FIRST_RETRY
        while (what := self._waiting.get(vm)) is not None:
            sequence = max(self._sequences.get(vm, 0) + 1, self._clock())
            self._sequences[vm] = sequence
            try:
                await self._js.publish(
                    subjects.report(self._node, "vm", vm),
                    self._report(vm, what, sequence).model_dump_json().encode(),
                    timeout=ACK_SECONDS,
                )
            except (NatsError, TimeoutError) as error:
                if not self._away:
                    log.warning("reports are not acknowledged", error=repr(error))
                self._away = True
                await asyncio.sleep(delay)
                delay = min(delay * 2, LAST_RETRY)
                continue
            if self._away:
                log.info("reports are acknowledged again")
            self._away = False
            if self._waiting.get(vm) is what:
                del self._waiting[vm]
            return

    def _report(self, vm: str, what: Seen, sequence: int) -> NodeReport:
        sources = what.addresses if what.addresses is None else what.addresses[:MOST_ADDRESSES]
        return NodeReport(
            vm=vm,
            node=self._node,
            epoch=what.epoch,
            lease=self._lease,
            sequence=sequence,
            at=datetime.now(UTC),
            power=what.power,
            desired=what.desired,
            asked_boots=what.asked_boots,
            boots=what.boots,
            size=what.size,
            addresses=tuple(one.address for one in sources or ()),
            address_sources=sources,
            cause=what.cause,
            forced=what.forced,
            host_boot=what.host_boot,
            resets=what.resets,
            watchdog_resets=what.watchdog_resets,
            step=what.step,
            error=what.error,
        )
