"""A hypervisor without one: domains in memory that behave, towards the daemon, as those of libvirt do.

- A domain is started first and kept later: until then it is transient, and gone once it is off.
- What runs and what is kept have a tag each: after a power-off the kept one shows, which may be an older one.
- A guest hears a shutdown only once it is up, and has an address only a while after its start.
- For a guest that stands still, in memory (paused) or on disk (suspended), time does as well.
- Why a domain is off is known until the hypervisor is restarted.
- A domain that is not ours is seen where it is in the way, and never touched.
- Every change of a domain is an event for those who watch; after a loss of contact anything may have changed.

Each act is one replacement of an immutable `Domain`, written to the shelf: guests outlive the process as real ones
outlive the daemon. What befalls guests and hosts by themselves are the methods below the hypervisor's own; faults of
the way to the hypervisor (no answer, refusals) are in `faults.py`. The contract that this and libvirt's adapter pass
is `tests/node_daemon/contract.py`.
"""

import asyncio
import hashlib
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import TypeAdapter

from domain.contract import Power
from node_daemon.domain_xml import Tag, domain_name
from node_daemon.hypervisor import Boot, Busy, Capacity, Channel, Have, Nudge, Refused, size_of
from node_daemon.shelf import Shelf
from runtime.settings import Latencies

DOMAIN, HOST = "domain", "host"
ADDRESS = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
INSTANT = Latencies(call=0, image=0, boot=0, lease=0, shutdown=0, memory=0, reboot=0)


@dataclass(frozen=True)
class Run:
    """A guest in memory, or its memory on disk; and when (seconds since 1970) it gets how far."""

    tag: Tag
    mac: str
    seed_url: str
    up_at: float
    leased_at: float
    #: the guest is on its way down
    off_at: float | None = None
    #: since when its CPUs stand still
    still: float | None = None
    #: they do since the disk could not be written
    stalled: bool = False

    def stand(self, now: float, *, stalled: bool = False) -> "Run":
        return self if self.still is not None else replace(self, still=now, stalled=stalled)

    def go_on(self, now: float) -> "Run":
        """What was to come comes as much later as it stood still."""
        if self.still is None:
            return self
        late = now - self.still
        off_at = self.off_at and self.off_at + late
        moved = replace(self, up_at=self.up_at + late, leased_at=self.leased_at + late, off_at=off_at)
        return replace(moved, still=None, stalled=False)


@dataclass(frozen=True)
class Domain:
    """What the hypervisor knows of a domain: as it runs, and as it is kept. With neither it is forgotten.

    `saved` is the memory of one that is suspended, and when that was; `run.still` alone says whether it was paused.
    With a `run` as well, it is left over.
    """

    uuid: str
    name: str
    run: Run | None = None
    kept: Tag | None = None
    saved: Run | None = None
    saved_at: float = 0.0
    #: why it is off
    cause: Literal["guest", "crashed"] | None = None
    ours: bool = True


_DOMAIN = TypeAdapter(Domain)


@dataclass(frozen=True)
class Call:
    """A call that acted on a VM, with what there was of it before."""

    method: str
    vm: str
    before: Have


class Echo:
    """A guest's serial console that says what it is told. Implements `hypervisor.Channel`."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self.over = False

    async def read(self) -> bytes:
        return b"" if self.over and self._said.empty() else await self._said.get()

    async def write(self, data: bytes) -> None:
        if not self.over:
            self._said.put_nowait(data)

    async def close(self) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        self.over = True
        self._said.put_nowait(b"")


Up = Callable[[str, int, str], None]
"""Called with a VM's id, count of boots and seed URL when its guest is up; perhaps more than once."""


class Simulator:
    """Implements `hypervisor.Hypervisor`. Make it inside a running event loop."""

    def __init__(
        self,
        node: str = "simulated",
        *,
        shelf: Shelf | None = None,
        seconds: Latencies = INSTANT,
        capacity: Capacity = Capacity(vcpus=32, memory_mib=128 * 1024),  # noqa: B008  (immutable)
        networks: tuple[str, ...] = ("default",),
        network: str = "default",
        seed: int = 0,
        up: Up | None = None,
        told: Callable[[Call], None] | None = None,
    ) -> None:
        self._node = node
        self._shelf = shelf or Shelf()
        self._seconds = seconds
        self._capacity = capacity
        self._networks = networks
        self._network = network
        self._random = random.Random(f"{seed} {node}")  # noqa: S311  (no secret)
        self._up = up
        self._told = told
        self._watchers: set[Nudge] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._consoles: dict[str, Echo] = {}
        host = self._shelf.all(node, HOST)
        self._boot = int(host.get("boot", "1"))
        self._domains = {uuid: _DOMAIN.validate_json(body) for uuid, body in self._shelf.all(node, DOMAIN).items()}
        for domain in list(self._domains.values()):
            self._follow(domain)

    @property
    def boot_id(self) -> str:
        """Another one after each boot of the simulated host."""
        return f"{self._node}-boot-{self._boot}"

    def close(self) -> None:
        """Nothing moves any more in here. The shelf keeps the guests, and time goes on for them."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    # ── what the daemon calls ───────────────────────────────────────────────────────────────────────────────────────

    async def domains(self) -> Mapping[str, Have]:
        await self._answer()
        return {domain.uuid: _have(domain) for domain in self._domains.values() if domain.ours}

    async def look(self, vm: str) -> Have:
        await self._answer()
        return self._look(vm)

    async def start(self, boot: Boot) -> Have:
        await self._answer("start", boot.wanted.vm)
        wanted, now = boot.wanted, time.time()
        if not ADDRESS.fullmatch(wanted.mac):
            raise Refused(f"unable to parse mac address {wanted.mac!r}", invalid=True)
        domain = self._domains.get(wanted.vm) or Domain(wanted.vm, domain_name(wanted.vm))
        if self._look(wanted.vm).foreign:
            raise Refused("another domain has this uuid or name")
        if domain.run is not None:
            raise Refused("the domain runs already")
        run = Run(
            tag=Tag(wanted.boots, wanted.epoch, wanted.generation, boot.host_boot, size_of(wanted), wanted.disk),
            mac=wanted.mac,
            seed_url=wanted.seed_url,
            up_at=now + self._draw(self._seconds.boot),
            leased_at=now + self._draw(self._seconds.lease),
        )
        return _have(self._put(replace(domain, run=run, cause=None)))

    async def keep(self, vm: str) -> None:
        await self._answer("keep", vm)
        if (domain := self._ours(vm)) is None:
            raise Refused("no such domain")
        if domain.run is not None:
            self._put(replace(domain, kept=domain.run.tag))

    async def shutdown(self, vm: str) -> None:
        await self._answer("shutdown", vm)
        now = time.time()
        if (found := self._running(vm)) is None:
            return
        domain, run = found
        if run.still is None and run.off_at is None and run.up_at <= now:
            self._put(replace(domain, run=replace(run, off_at=now + self._draw(self._seconds.shutdown))))

    async def pause(self, vm: str) -> None:
        await self._answer("pause", vm)
        if (found := self._running(vm)) is not None:
            domain, run = found
            self._put(replace(domain, run=run.stand(time.time())))

    async def unpause(self, vm: str) -> None:
        await self._answer("unpause", vm)
        if (found := self._running(vm)) is not None:
            domain, run = found
            self._put(replace(domain, run=run.go_on(time.time())))

    async def suspend(self, vm: str, patience: float) -> None:
        await self._answer("suspend", vm, self._seconds.memory)
        if (found := self._running(vm)) is None:
            return
        domain, run = found
        if domain.kept is None:
            raise Refused("a transient domain cannot be saved")
        self._put(replace(domain, run=None, cause=None, saved=run, saved_at=time.time()))

    async def restore(self, vm: str, host_boot: str, patience: float) -> None:
        await self._answer("restore", vm, self._seconds.memory)
        domain = self._ours(vm)
        if domain is None or domain.run is not None or domain.saved is None or domain.kept is None:
            return
        run, now = domain.saved, time.time()
        if run.still is None:
            run = replace(run, still=domain.saved_at).go_on(now)
        self._put(replace(domain, run=run, saved=None, kept=replace(domain.kept, host_boot=host_boot)))

    async def discard(self, vm: str) -> None:
        await self._answer("discard", vm)
        if (domain := self._ours(vm)) is not None and domain.saved is not None:
            self._put(replace(domain, saved=None))

    async def destroy(self, vm: str) -> None:
        await self._answer("destroy", vm)
        self._end(vm, None)

    async def undefine(self, vm: str) -> None:
        await self._answer("undefine", vm)
        if (domain := self._ours(vm)) is not None:
            self._put(replace(domain, kept=None, saved=None))

    async def addresses(self, vm: str, mac: str) -> tuple[str, ...]:
        await self._answer()
        if (found := self._running(vm)) is None:
            return ()
        _, run = found
        if run.leased_at > (run.still or time.time()):
            return ()
        return (_address(vm),) if run.mac.lower() == mac.lower() else ()

    async def open_console(self, vm: str, *, force: bool) -> Channel:
        await self._answer("open_console", vm)
        if self._running(vm) is None:
            raise Refused("the domain does not run")
        if (had := self._consoles.get(vm)) is not None and not had.over:
            if not force:
                raise Busy("somebody has the console")
            await had.close()
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
        if self._network not in self._networks:
            raise Refused(f"no network with matching name {self._network!r}")

    async def watch(self, nudge: Nudge) -> None:
        self._watchers.add(nudge)
        try:
            nudge(None)
            await asyncio.Event().wait()
        finally:
            self._watchers.discard(nudge)

    # ── what happens to guests and hosts by themselves ──────────────────────────────────────────────────────────────

    def running(self) -> list[str]:
        """The VMs whose domains run."""
        return [domain.uuid for domain in self._domains.values() if domain.ours and domain.run is not None]

    def boots(self, vm: str) -> int:
        """The count that a VM's domain runs for; 0 when it does not run."""
        found = self._running(vm)
        return found[1].tag.boots if found is not None else 0

    def power_off(self, vm: str) -> None:
        """The guest powers itself off, unless it stands still."""
        if (found := self._running(vm)) is not None and found[1].still is None:
            self._end(vm, "guest")

    def crash(self, vm: str) -> None:
        """QEMU dies."""
        self._end(vm, "crashed")

    def stall(self, vm: str) -> None:
        """The guest's disk cannot be written: it is paused."""
        if (found := self._running(vm)) is not None:
            domain, run = found
            self._put(replace(domain, run=run.stand(time.time(), stalled=True)))

    def leave_memory(self, vm: str) -> None:
        """The hypervisor's own process dies while it writes a guest's memory: the guest runs on, and the file stays."""
        if (found := self._running(vm)) is not None and found[0].kept is not None:
            self._put(replace(found[0], saved=found[1], saved_at=time.time()))

    def vanish(self, vm: str) -> None:
        """Somebody takes the domain away, running or not."""
        if (domain := self._ours(vm)) is not None:
            self._put(replace(domain, run=None, kept=None, saved=None))

    def restart(self) -> None:
        """The hypervisor's own process starts anew: guests run on; why others are off, it does not know any more."""
        for domain in list(self._domains.values()):
            if domain.cause is not None:
                self._put(replace(domain, cause=None))
        self._nudge(None)

    def reboot(self) -> None:
        """The host loses its power and comes up again: nothing runs, and what was not kept is gone."""
        self._boot += 1
        self._shelf.put(self._node, HOST, "boot", str(self._boot))
        for domain in list(self._domains.values()):
            self._put(replace(domain, run=None, cause=None))

    def define_foreign(self, uuid: str, name: str) -> None:
        """Somebody else makes a domain."""
        self._put(Domain(uuid, name, kept=Tag(0, 0, 0, ""), ours=False))

    def undefine_foreign(self, uuid: str) -> None:
        self._put(replace(self._domains[uuid], run=None, kept=None))

    # ── how it is done ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _answer(self, method: str = "", vm: str = "", seconds: float = 0.0) -> None:
        """Take the time that a call takes. From its end to that of the method nothing else happens."""
        await asyncio.sleep(self._draw(self._seconds.call + seconds))
        if self._told is not None and method:
            self._told(Call(method, vm, self._look(vm)))

    def _draw(self, seconds: float) -> float:
        return seconds * self._random.uniform(0.5, 1.5)

    def _ours(self, vm: str) -> Domain | None:
        domain = self._domains.get(vm)
        return domain if domain is not None and domain.ours else None

    def _running(self, vm: str) -> tuple[Domain, Run] | None:
        """A domain of ours whose guest is in memory."""
        domain = self._ours(vm)
        return (domain, domain.run) if domain is not None and domain.run is not None else None

    def _look(self, vm: str) -> Have:
        if (domain := self._domains.get(vm)) is not None:
            return _have(domain)
        name = domain_name(vm)
        foreign = any(domain.name == name for domain in self._domains.values() if not domain.ours)
        return Have(vm=vm, power=Power.ABSENT, foreign=foreign)

    def _end(self, vm: str, cause: Literal["guest", "crashed"] | None) -> None:
        """A running domain of ours is off; one that was never kept is gone."""
        if (found := self._running(vm)) is not None:
            self._put(replace(found[0], run=None, cause=cause))

    def _put(self, domain: Domain) -> Domain:
        """This is what there is from now on of a domain; everybody hears of it."""
        if domain.run is None and domain.kept is None:
            self._domains.pop(domain.uuid, None)
            self._shelf.remove(self._node, DOMAIN, domain.uuid)
        else:
            self._domains[domain.uuid] = domain
            self._shelf.put(self._node, DOMAIN, domain.uuid, _DOMAIN.dump_json(domain).decode())
        if domain.run is None and (console := self._consoles.pop(domain.uuid, None)) is not None:
            console.hang_up()
        self._follow(domain)
        self._nudge(domain.uuid)
        return domain

    def _follow(self, domain: Domain) -> None:
        """Come back when the next thing happens to the guest by the clock: it is up, or it is off."""
        if (timer := self._timers.pop(domain.uuid, None)) is not None:
            timer.cancel()
        run = domain.run
        if run is None or run.still is not None:
            return
        if run.off_at is not None:
            self._at(run.off_at, domain.uuid, self.power_off, domain.uuid)
        elif self._up is not None:
            self._at(run.up_at, domain.uuid, self._up, domain.uuid, run.tag.boots, run.seed_url)

    def _at(self, when: float, uuid: str, act: Callable[..., None], *arguments: object) -> None:
        wait = max(0.0, when - time.time())
        self._timers[uuid] = asyncio.get_running_loop().call_later(wait, act, *arguments)

    def _nudge(self, vm: str | None) -> None:
        for nudge in list(self._watchers):
            nudge(vm)


def remembered(shelf: Shelf, node: str) -> dict[str, Have]:
    """The domains of a simulated host, by VM id, as its shelf has them: for those who look on."""
    domains = (_DOMAIN.validate_json(body) for body in shelf.all(node, DOMAIN).values())
    return {domain.uuid: _have(domain) for domain in domains if domain.ours}


def _have(domain: Domain) -> Have:
    if not domain.ours:
        return Have(vm=domain.uuid, power=Power.UNKNOWN, foreign=True)
    run, kept = domain.run, domain.kept
    tag = run.tag if run is not None else kept
    assert tag is not None
    seen = Have(
        vm=domain.uuid,
        power=Power.OFF,
        boots=tag.boots,
        epoch=tag.epoch,
        generation=tag.generation,
        disk=tag.disk,
        size=tag.size,
        host_boot=tag.host_boot,
    )
    if run is not None:
        # a restored domain runs with the tag of before it was suspended
        same = kept is not None and replace(kept, host_boot=tag.host_boot) == tag
        power = Power.PAUSED if run.still is not None else Power.ON
        return replace(seen, power=power, kept=same, stalled=run.stalled, remains=domain.saved is not None)
    if domain.saved is not None:
        return replace(seen, power=Power.SUSPENDED)
    return replace(seen, cause=domain.cause)


def _address(vm: str) -> str:
    """An address of 10.0.0.0/8, the same for the VM's life."""
    first, second, third = hashlib.sha256(vm.encode()).digest()[:3]
    return f"10.{first}.{second}.{max(2, min(third, 254))}"
