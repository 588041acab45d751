"""A simulated hypervisor. To the daemon, its domains behave like libvirt's.

- A domain is first started (transient), and made persistent later.
- The running domain and its stored configuration have a tag each. After a power-off the stored tag is shown, which may
  be an older one.
- A guest reacts to a shutdown only after it has booted, and gets an address only some time after its start.
- A foreign domain is shown if it has the uuid or name of a VM, and is never changed.

`simulated_host.py` has the domains, and the events that happen to them without a call. `faults.py` has the faults of
the connection to the hypervisor (no answer, refusals). This simulator and libvirt's adapter pass the same contract,
`tests/node_daemon/contract.py`.
"""

import asyncio
import hashlib
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from domain.guest import Filesystem, Guest, Interface, InterfaceAddress, OperatingSystem, Timezone
from domain.guest_usage import GuestUsage
from node_daemon.hypervisor.domain_xml import Tag, domain_name
from node_daemon.hypervisor.hypervisor import (
    AgentMissing,
    AgentSilent,
    Boot,
    Busy,
    Capacity,
    Channel,
    Fired,
    Have,
    Lease,
    Nudge,
    Refused,
    Reset,
    Sighting,
    ignore,
    size_of,
)
from node_daemon.simulation.simulated_host import Domain, Run, SimulatedHost
from node_daemon.simulation.simulated_usage import usage_of
from runtime.settings import Latencies

ADDRESS = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
INSTANT = Latencies(call=0, image=0, boot=0, lease=0, shutdown=0, memory=0, reboot=0)


@dataclass(frozen=True)
class Call:
    """A call that acted on a VM, and the state of the VM before it."""

    method: str
    vm: str
    before: Have


class Echo:
    """A guest's serial console that returns its input as output. Implements `hypervisor.Channel`."""

    def __init__(self) -> None:
        self._output: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended = False

    async def read(self) -> bytes:
        return b"" if self.ended and self._output.empty() else await self._output.get()

    async def write(self, data: bytes) -> None:
        if not self.ended:
            self._output.put_nowait(data)

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        self.ended = True
        self._output.put_nowait(b"")


class Simulator:
    """Implements `hypervisor.Hypervisor`."""

    def __init__(
        self,
        host: SimulatedHost,
        *,
        seconds: Latencies = INSTANT,
        capacity: Capacity = Capacity(vcpus=32, memory_mib=128 * 1024),  # noqa: B008  (immutable)
        networks: tuple[str, ...] = ("default",),
        network: str = "default",
        seed: int = 0,
        on_call: Callable[[Call], None] | None = None,
    ) -> None:
        self.host = host
        self._seconds = seconds
        self._capacity = capacity
        self._networks = networks
        self._network = network
        self._random = random.Random(f"{seed} {host.name}")  # noqa: S311  (no secret)
        self._on_call = on_call
        self._consoles: dict[str, Echo] = {}
        host.watch(self._end_console)

    async def domains(self) -> Mapping[str, Have]:
        await self._answer()
        return self.host.all()

    async def look(self, vm: str) -> Have:
        await self._answer()
        return self.host.look(vm)

    async def start(self, boot: Boot) -> Have:
        await self._answer("start", boot.wanted.vm)
        wanted, now = boot.wanted, time.time()
        if not ADDRESS.fullmatch(wanted.mac):
            raise Refused(f"unable to parse mac address {wanted.mac!r}", invalid=True)
        domain = self.host.ours(wanted.vm) or Domain(wanted.vm, domain_name(wanted.vm))
        if self.host.look(wanted.vm).foreign:
            raise Refused("another domain has this uuid or name")
        if domain.run is not None:
            raise Refused("the domain runs already")
        self._check_network()
        run = Run(
            tag=Tag(
                wanted.boots,
                wanted.epoch,
                wanted.generation,
                boot.host_boot,
                size_of(wanted),
                wanted.disk,
                wanted.place,
            ),
            mac=wanted.mac,
            seed_url=wanted.seed_url,
            up_at=now + self._draw(self._seconds.boot),
            leased_at=now + self._draw(self._seconds.lease),
            hostname=wanted.name,
            watchdog=wanted.watchdog,
        )
        self.host.put(replace(domain, run=run, cause=None, forced=False))
        return self.host.look(wanted.vm)

    async def persist(self, vm: str) -> None:
        await self._answer("persist", vm)
        if (domain := self.host.ours(vm)) is None:
            raise Refused("no such domain")
        if domain.run is not None:
            self.host.put(replace(domain, kept=domain.run.tag))

    async def shutdown(self, vm: str) -> None:
        await self._answer("shutdown", vm)
        now = time.time()
        if (found := self.host.in_memory(vm)) is None:
            return
        domain, run = found
        if run.still is None and run.off_at is None and run.up_at <= now:
            self.host.put(replace(domain, run=replace(run, off_at=now + self._draw(self._seconds.shutdown))))

    async def pause(self, vm: str) -> None:
        await self._answer("pause", vm)
        if (found := self.host.in_memory(vm)) is not None:
            domain, run = found
            self.host.put(replace(domain, run=run.paused(time.time())))

    async def unpause(self, vm: str) -> None:
        await self._answer("unpause", vm)
        if (found := self.host.in_memory(vm)) is not None:
            domain, run = found
            self.host.put(replace(domain, run=run.resumed(time.time())))

    async def suspend(self, vm: str, patience: float) -> None:
        await self._answer("suspend", vm, self._seconds.memory)
        if (found := self.host.in_memory(vm)) is None:
            return
        domain, run = found
        if domain.kept is None:
            raise Refused("a transient domain cannot be saved")
        self.host.put(replace(domain, run=None, cause=None, forced=False, saved=run, saved_at=time.time()))

    async def restore(self, vm: str, host_boot: str, patience: float) -> None:
        await self._answer("restore", vm, self._seconds.memory)
        domain = self.host.ours(vm)
        if domain is None or domain.run is not None or domain.saved is None or domain.kept is None:
            return
        run, now = domain.saved, time.time()
        if run.still is None:
            run = replace(run, still=domain.saved_at).resumed(now)
        self.host.put(replace(domain, run=run, saved=None, kept=replace(domain.kept, host_boot=host_boot)))

    async def discard(self, vm: str, *, leftover: bool = False) -> None:
        await self._answer("discard", vm)
        domain = self.host.ours(vm)
        if domain is not None and domain.saved is not None and (domain.run is not None or not leftover):
            self.host.put(replace(domain, saved=None))

    async def destroy(self, vm: str) -> None:
        await self._answer("destroy", vm)
        self.host.end(vm, None)

    async def undefine(self, vm: str) -> None:
        await self._answer("undefine", vm)
        if (domain := self.host.ours(vm)) is not None:
            self.host.put(replace(domain, kept=None, saved=None))

    async def addresses(self, vm: str, mac: str) -> Sighting:
        """Here, a lease ends with its boot, and the agent reports the same address as the lease."""
        await self._answer()
        if (found := self.host.in_memory(vm)) is None or found[1].mac.lower() != mac.lower():
            return Sighting()
        _, run = found
        leased = (address_of(vm),) if run.leased_at <= (run.still or time.time()) else ()
        answers = run.agent == "answers" and run.still is None and run.up_at <= time.time()
        return Sighting(agent=leased if answers else None, leases=tuple(Lease(address) for address in leased))

    async def guest(self, vm: str) -> Guest:
        await self._answer()
        found = self.host.in_memory(vm)
        if found is None or found[1].still is not None:
            raise Refused("the domain does not run")
        _, run = found
        if run.agent == "missing" or run.up_at > time.time():
            raise AgentMissing("no agent runs in the guest")
        if run.agent == "silent":
            raise AgentSilent("the agent does not answer")
        return _facts(vm, run, time.time())

    async def usage(self) -> Mapping[str, GuestUsage]:
        await self._answer()
        now = time.time()
        found = {vm: self.host.in_memory(vm) for vm in self.host.running()}
        return {vm: usage_of(vm, each[1], now) for vm, each in found.items() if each is not None}

    async def open_console(self, vm: str, *, force: bool) -> Channel:
        await self._answer("open_console", vm)
        if self.host.in_memory(vm) is None:
            raise Refused("the domain does not run")
        if (earlier := self._consoles.get(vm)) is not None and not earlier.ended:
            if not force:
                raise Busy("somebody has the console")
            await earlier.close()
        self._consoles[vm] = Echo()
        return self._consoles[vm]

    async def open_display(self, vm: str) -> Channel:
        await self._answer("open_display", vm)
        raise Refused("a simulated guest has no display")

    async def capacity(self) -> Capacity:
        await self._answer()
        return self._capacity

    async def ensure_network(self) -> None:
        await self._answer()
        self._check_network()

    async def watch(self, nudge: Nudge, reset: Reset = ignore, fired: Fired = ignore) -> None:
        self.host.watch(nudge, reset, fired)
        try:
            nudge(None)
            await asyncio.Event().wait()
        finally:
            self.host.unwatch(nudge)

    # ── helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, method: str = "", vm: str = "", seconds: float = 0.0) -> None:
        """Wait as long as a call takes. After this, the method acts without waiting again, so nothing else happens."""
        await asyncio.sleep(self._draw(self._seconds.call + seconds))
        if self._on_call is not None and method:
            self._on_call(Call(method, vm, self.host.look(vm)))

    def _check_network(self) -> None:
        if self._network not in self._networks:
            raise Refused(f"no network with matching name {self._network!r}", code="network_missing")

    def _draw(self, seconds: float) -> float:
        return seconds * self._random.uniform(0.5, 1.5)

    def _end_console(self, vm: str | None) -> None:
        """End the console of a guest that is no longer in memory."""
        if vm is not None and self.host.in_memory(vm) is None and (echo := self._consoles.pop(vm, None)) is not None:
            echo.end()


def _facts(vm: str, run: Run, now: float) -> Guest:
    """The facts that the guest's agent reports: a small system on one disk; an address once it has a lease."""
    size = run.tag.size
    total = (size.disk_gib if size is not None else 1) * 1024**3
    leased = (InterfaceAddress(address=address_of(vm), prefix=8),) if run.leased_at <= now else ()
    return Guest(
        hostname=run.hostname or None,
        os=OperatingSystem(id="simulated", name="Simulated guest", machine="x86_64"),
        timezone=Timezone(name="UTC", offset_seconds=0),
        interfaces=(Interface(name="eth0", mac=run.mac.lower(), addresses=leased),),
        filesystems=(Filesystem(mountpoint="/", device="vda1", type="ext4", total_bytes=total, used_bytes=total // 4),),
    )


def address_of(vm: str) -> str:
    """An address of 10.0.0.0/8, the same for the VM's life."""
    first, second, third = hashlib.sha256(vm.encode()).digest()[:3]
    return f"10.{first}.{second}.{max(2, min(third, 254))}"
