"""Faults of the connection to a hypervisor, for tests and the simulator: outages, calls that hang, refusals.

A call that hangs ends for its caller at the deadline. Its work may still be done, before or after the deadline. Until
it returns, no other call on the same VM is made. libvirt behaves in the same way (`connections.py`).
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from domain.guest import Guest
from domain.guest_usage import GuestUsage
from node_daemon.hypervisor.hypervisor import (
    Boot,
    Capacity,
    Channel,
    Fired,
    Have,
    Hypervisor,
    Nudge,
    Refused,
    Reset,
    Sighting,
    Unreachable,
    ignore,
)
from runtime.settings import FaultRates
from runtime.tasks.tasks import end

T = TypeVar("T")

#: A call hangs for at most so many times the deadline.
LONGEST = 2.0


class Faulty:
    """Implements `hypervisor.Hypervisor` on top of another one. `rates` may be changed at any time."""

    def __init__(self, real: Hypervisor, rates: FaultRates, deadline: float, seed: float | str = 0) -> None:
        self.rates = rates
        self._real = real
        self._deadline = deadline
        self._random = random.Random(seed)  # noqa: S311  (no secret)
        self._away = asyncio.Event()
        self._back = asyncio.Event()
        self._back.set()
        self._hung: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """The hypervisor does not answer inside the block."""
        self._back.clear()
        self._away.set()
        try:
            yield
        finally:
            self._away.clear()
            self._back.set()

    async def close(self) -> None:
        """Cancel the calls that hang; what they have not done yet is never done."""
        await end(self._hung.values())

    async def domains(self) -> Mapping[str, Have]:
        return await self._through("all domains", self._real.domains)

    async def look(self, vm: str) -> Have:
        return await self._through(vm, lambda: self._real.look(vm))

    async def start(self, boot: Boot) -> Have:
        return await self._through(boot.wanted.vm, lambda: self._real.start(boot))

    async def persist(self, vm: str) -> None:
        await self._through(vm, lambda: self._real.persist(vm))

    async def shutdown(self, vm: str) -> None:
        await self._through(vm, lambda: self._real.shutdown(vm))

    async def pause(self, vm: str) -> None:
        await self._through(vm, lambda: self._real.pause(vm))

    async def unpause(self, vm: str) -> None:
        await self._through(vm, lambda: self._real.unpause(vm))

    async def suspend(self, vm: str, patience: float) -> None:
        await self._through(vm, lambda: self._real.suspend(vm, patience))

    async def restore(self, vm: str, host_boot: str, patience: float) -> None:
        await self._through(vm, lambda: self._real.restore(vm, host_boot, patience))

    async def discard(self, vm: str, *, leftover: bool = False) -> None:
        await self._through(vm, lambda: self._real.discard(vm, leftover=leftover))

    async def destroy(self, vm: str) -> None:
        await self._through(vm, lambda: self._real.destroy(vm))

    async def undefine(self, vm: str) -> None:
        await self._through(vm, lambda: self._real.undefine(vm))

    async def addresses(self, vm: str, mac: str) -> Sighting:
        return await self._through(f"{vm} addresses", lambda: self._real.addresses(vm, mac))

    async def guest(self, vm: str) -> Guest:
        return await self._through(f"{vm} guest", lambda: self._real.guest(vm))

    async def usage(self) -> Mapping[str, GuestUsage]:
        return await self._through("usage", self._real.usage)

    async def open_console(self, vm: str, *, force: bool) -> Channel:
        return await self._through(f"{vm} console", lambda: self._real.open_console(vm, force=force))

    async def open_display(self, vm: str) -> Channel:
        return await self._through(f"{vm} display", lambda: self._real.open_display(vm))

    async def capacity(self) -> Capacity:
        return await self._through("host", self._real.capacity)

    async def ensure_network(self) -> None:
        await self._through("network", self._real.ensure_network)

    async def watch(self, nudge: Nudge, reset: Reset = ignore, fired: Fired = ignore) -> None:
        while True:
            await self._back.wait()
            watching = asyncio.create_task(self._real.watch(nudge, reset, fired))
            try:
                await self._away.wait()
            finally:
                await end([watching])
            nudge(None)

    async def _through(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of the call, or one of the faults."""
        if key in self._hung:
            raise Unreachable(f"an earlier call on {key} still hangs")
        if self._away.is_set():
            raise Unreachable("the hypervisor does not answer")
        chance = self._random.random()
        if chance < self.rates.refused:
            raise Refused("refused by chance")
        if chance < self.rates.refused + self.rates.hang:
            self._hung[key] = asyncio.create_task(self._hang(key, work))
            await asyncio.sleep(self._deadline)
            raise Unreachable(f"no answer within {self._deadline:.0f} s")
        return await work()

    async def _hang(self, key: str, work: Callable[[], Awaitable[object]]) -> None:
        at, until = sorted(self._random.uniform(0, LONGEST * self._deadline) for _ in range(2))
        try:
            await asyncio.sleep(at)
            with contextlib.suppress(Refused, Unreachable):
                await work()
            await asyncio.sleep(max(self._deadline, until) - at)
        finally:
            del self._hung[key]
