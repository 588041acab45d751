"""The addresses of one running guest, asked for until it has some and now and then afterwards."""

import asyncio
import contextlib
from collections.abc import Callable

from domain.contract import Power, Wanted
from node_daemon.hypervisor import Have, Hypervisor, Refused, Unreachable

#: Seconds between two questions: while there is no address, and afterwards.
MISSING, KNOWN = 2.0, 15.0


class Addresses:
    """`known` is of the present boot only. `changed` is called when it changes."""

    def __init__(self, vm: str, hypervisor: Hypervisor, changed: Callable[[], None]) -> None:
        self._vm = vm
        self._hypervisor = hypervisor
        self._changed = changed
        self._boots = 0
        self._task: asyncio.Task[None] | None = None
        self.known: tuple[str, ...] = ()

    def follow(self, want: Wanted, have: Have) -> None:
        """Ask from now on, or stop asking, as the domain runs or not."""
        boots = have.boots if have.power is Power.ON else 0
        if boots == self._boots:
            return
        self.stop()
        self._boots = boots
        if boots:
            self._task = asyncio.create_task(self._ask(want.mac), name=f"addresses {self._vm}")

    def stop(self) -> None:
        self.known = ()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _ask(self, mac: str) -> None:
        while True:
            with contextlib.suppress(Unreachable, Refused):
                found = await self._hypervisor.addresses(self._vm, mac)
                if found and found != self.known:
                    self.known = found
                    self._changed()
            await asyncio.sleep(KNOWN if self.known else MISSING)
