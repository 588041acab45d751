"""A simulated host: its domains and their guests, and events that happen to them without a call of the hypervisor.

The state of a domain is an immutable `Domain`. Each call (`simulator.py`) or event (here) replaces it as a whole and
writes it to the host store. So guests survive the end of the process, as real guests survive the end of the daemon.

- A transient domain is deleted when it is off.
- While a guest is paused or suspended, its time does not pass.
- The reason why a domain is off is known until the hypervisor restarts.
- Each change of a domain is an event for the watchers. After a lost connection they are nudged with None.

`random_faults.py` decides how often which event happens.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import TypeAdapter

from domain.contract import Power, Watchdog
from node_daemon.hypervisor.domain_xml import Tag, domain_name
from node_daemon.hypervisor.hypervisor import Fired, Have, Nudge, Reset, ignore
from node_daemon.simulation.host_store import HostStore

DOMAIN, HOST = "domain", "host"


Agent = Literal["answers", "silent", "missing"]
"""The behavior of the agent in a guest, once the guest has booted."""


@dataclass(frozen=True)
class Run:
    """A guest in memory, or its memory on disk. All times are seconds since 1970.

    `up_at`, `leased_at`: when it has booted, and when it gets its address. The field names are stored.
    """

    tag: Tag
    mac: str
    seed_url: str
    up_at: float
    leased_at: float
    #: when the guest will be off, once it shuts down
    off_at: float | None = None
    #: since when its CPUs are stopped
    still: float | None = None
    #: they are stopped because of an I/O error
    stalled: bool = False
    hostname: str = ""
    agent: Agent = "answers"
    #: number of resets of the guest
    resets: int = 0
    watchdog: Watchdog = Watchdog.DISABLED

    def paused(self, now: float, *, stalled: bool = False) -> "Run":
        return self if self.still is not None else replace(self, still=now, stalled=stalled)

    def resumed(self, now: float) -> "Run":
        """The guest with its CPUs running. Its future times move by the length of the pause."""
        if self.still is None:
            return self
        late = now - self.still
        off_at = self.off_at and self.off_at + late
        moved = replace(self, up_at=self.up_at + late, leased_at=self.leased_at + late, off_at=off_at)
        return replace(moved, still=None, stalled=False)


@dataclass(frozen=True)
class Domain:
    """A domain: its running guest (`run`) and its stored configuration (`kept`). Without both it does not exist.

    `saved`: the memory on disk of a suspended domain, written at `saved_at`; if `run` is set too, it is a leftover. The
    domain was paused before it was suspended if `saved.still` is set. The field names are stored.
    """

    uuid: str
    name: str
    run: Run | None = None
    kept: Tag | None = None
    saved: Run | None = None
    saved_at: float = 0.0
    #: why it is off
    cause: Literal["guest", "crashed"] | None = None
    forced: bool = False
    ours: bool = True


_DOMAIN = TypeAdapter(Domain)


Up = Callable[[str, int, int, str], None]
"""Called with the VM's id, `boots`, resets and seed URL when its guest has booted; possibly more than once."""


class SimulatedHost:
    """The domains of one host. Create it inside a running event loop."""

    def __init__(self, name: str = "simulated", host_store: HostStore | None = None, *, up: Up | None = None) -> None:
        self.name = name
        self._host_store = host_store or HostStore()
        self._up = up
        self._watchers: dict[Nudge, tuple[Reset, Fired]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        host = self._host_store.all(name, HOST)
        self._boot = int(host.get("boot", "1"))
        self._domains = {uuid: _DOMAIN.validate_json(body) for uuid, body in self._host_store.all(name, DOMAIN).items()}
        for domain in list(self._domains.values()):
            self._follow(domain)

    @property
    def boot_id(self) -> str:
        """The boot id of the host, which changes with each of its boots."""
        return f"{self.name}-boot-{self._boot}"

    def close(self) -> None:
        """Stop all timers. The host store keeps the guests, and their time continues to pass."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    # ── state ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def all(self) -> dict[str, Have]:
        """All domains with our tag, by VM id."""
        return {domain.uuid: _have(domain) for domain in self._domains.values() if domain.ours}

    def ours(self, vm: str) -> Domain | None:
        domain = self._domains.get(vm)
        return domain if domain is not None and domain.ours else None

    def in_memory(self, vm: str) -> tuple[Domain, Run] | None:
        """The domain of a VM and its guest, if the guest is in memory."""
        domain = self.ours(vm)
        return (domain, domain.run) if domain is not None and domain.run is not None else None

    def look(self, vm: str) -> Have:
        if (domain := self._domains.get(vm)) is not None:
            return _have(domain)
        name = domain_name(vm)
        foreign = any(domain.name == name for domain in self._domains.values() if not domain.ours)
        return Have(vm=vm, power=Power.ABSENT, foreign=foreign)

    def running(self) -> list[str]:
        """The ids of the VMs whose guests are in memory."""
        return [domain.uuid for domain in self._domains.values() if domain.ours and domain.run is not None]

    def boots(self, vm: str) -> tuple[int, int]:
        """`boots` of a VM's domain, and the resets of its guest; zeros if it does not run."""
        found = self.in_memory(vm)
        return (found[1].tag.boots, found[1].resets) if found is not None else (0, 0)

    # ── changes ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, domain: Domain) -> None:
        """Replace the state of a domain, store it, and notify all watchers."""
        if domain.run is None and domain.kept is None:
            self._domains.pop(domain.uuid, None)
            self._host_store.remove(self.name, DOMAIN, domain.uuid)
        else:
            self._domains[domain.uuid] = domain
            self._host_store.put(self.name, DOMAIN, domain.uuid, _DOMAIN.dump_json(domain).decode())
        self._follow(domain)
        self._nudge(domain.uuid)

    def end(self, vm: str, cause: Literal["guest", "crashed"] | None) -> None:
        """Power off a running domain; without a `cause`, by force. A transient domain is deleted."""
        if (found := self.in_memory(vm)) is not None:
            self.put(replace(found[0], run=None, cause=cause, forced=cause is None))

    def watch(self, nudge: Nudge, reset: Reset = ignore, fired: Fired = ignore) -> None:
        """Call these functions for each change from now on, in the order in which watchers were added."""
        self._watchers[nudge] = (reset, fired)

    def unwatch(self, nudge: Nudge) -> None:
        del self._watchers[nudge]

    # ── events of guests and of the host ────────────────────────────────────────────────────────────────────────────

    def power_off(self, vm: str) -> None:
        """The guest powers itself off, unless it is paused."""
        if (found := self.in_memory(vm)) is not None and found[1].still is None:
            self.end(vm, "guest")

    def crash(self, vm: str) -> None:
        """QEMU dies."""
        self.end(vm, "crashed")

    def reset(self, vm: str, seconds: float = 0.0) -> None:
        """The guest resets itself, and has booted again after so many seconds."""
        if (found := self.in_memory(vm)) is not None and found[1].still is None:
            domain, run = found
            again = replace(run, up_at=time.time() + seconds, off_at=None, agent="answers", resets=run.resets + 1)
            self.put(replace(domain, run=again))
            for on_reset, _ in list(self._watchers.values()):
                on_reset(vm)

    def hang(self, vm: str) -> None:
        """The guest hangs. Its watchdog acts, if it has one."""
        if (found := self.in_memory(vm)) is None or found[1].still is not None:
            return
        action = found[1].watchdog
        if action is Watchdog.DISABLED:
            return
        for _, on_fired in list(self._watchers.values()):
            on_fired(vm, action)
        if action is Watchdog.RESET:
            self.reset(vm)
        else:
            self.crash(vm)  # QEMU ends immediately, which looks like a crash

    def stall(self, vm: str) -> None:
        """A write to the guest's disk fails, so the hypervisor pauses it."""
        if (found := self.in_memory(vm)) is not None:
            domain, run = found
            self.put(replace(domain, run=run.paused(time.time(), stalled=True)))

    def agent_is(self, vm: str, agent: Agent) -> None:
        """Change the behavior of the guest's agent until the next boot."""
        if (found := self.in_memory(vm)) is not None:
            self.put(replace(found[0], run=replace(found[1], agent=agent)))

    def leave_memory(self, vm: str) -> None:
        """The hypervisor's own process dies while it writes a guest's memory: the guest keeps
        running, the file stays.
        """
        if (found := self.in_memory(vm)) is not None and found[0].kept is not None:
            self.put(replace(found[0], saved=found[1], saved_at=time.time()))

    def vanish(self, vm: str) -> None:
        """Somebody else deletes the domain, running or not."""
        if (domain := self.ours(vm)) is not None:
            self.put(replace(domain, run=None, kept=None, saved=None))

    def restart(self) -> None:
        """The hypervisor's own process restarts: guests keep running; the reasons why domains are off are lost."""
        for domain in list(self._domains.values()):
            if domain.cause is not None or domain.forced:
                self.put(replace(domain, cause=None, forced=False))
        self._nudge(None)

    def reboot(self) -> None:
        """The host loses power and boots again: no domain runs, and transient domains are deleted."""
        self._boot += 1
        self._host_store.put(self.name, HOST, "boot", str(self._boot))
        for domain in list(self._domains.values()):
            self.put(replace(domain, run=None, cause=None, forced=False))

    def define_foreign(self, uuid: str, name: str) -> None:
        """Somebody else defines a domain."""
        self.put(Domain(uuid, name, kept=Tag(0, 0, 0, ""), ours=False))

    # ── helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _follow(self, domain: Domain) -> None:
        """Set a timer for the next event of the guest: it has booted, or it is off."""
        if (timer := self._timers.pop(domain.uuid, None)) is not None:
            timer.cancel()
        run = domain.run
        if run is None or run.still is not None:
            return
        if run.off_at is not None:
            self._at(run.off_at, domain.uuid, self.power_off, domain.uuid)
        elif self._up is not None:
            self._at(run.up_at, domain.uuid, self._up, domain.uuid, run.tag.boots, run.resets, run.seed_url)

    def _at(self, when: float, uuid: str, act: Callable[..., None], *arguments: object) -> None:
        wait = max(0.0, when - time.time())
        self._timers[uuid] = asyncio.get_running_loop().call_later(wait, act, *arguments)

    def _nudge(self, vm: str | None) -> None:
        for nudge in list(self._watchers):
            nudge(vm)


def stored_domains(host_store: HostStore, node: str) -> dict[str, Have]:
    """The domains of a simulated host, by VM id, read from its host store; for tests that only observe."""
    domains = (_DOMAIN.validate_json(body) for body in host_store.all(node, DOMAIN).values())
    return {domain.uuid: _have(domain) for domain in domains if domain.ours}


def _have(domain: Domain) -> Have:
    if not domain.ours:
        return Have(vm=domain.uuid, power=Power.UNKNOWN, foreign=True)
    run, kept = domain.run, domain.kept
    tag = run.tag if run is not None else kept
    assert tag is not None
    have = Have(
        vm=domain.uuid,
        power=Power.OFF,
        boots=tag.boots,
        epoch=tag.epoch,
        generation=tag.generation,
        place=tag.place,
        disk=tag.disk,
        size=tag.size,
        host_boot=tag.host_boot,
    )
    if run is not None:
        # a restored domain runs with the `host_boot` from before it was suspended
        same = kept is not None and replace(kept, host_boot=tag.host_boot) == tag
        power = Power.PAUSED if run.still is not None else Power.ON
        return replace(have, power=power, persistent=same, stalled=run.stalled, remains=domain.saved is not None)
    if domain.saved is not None:
        return replace(have, power=Power.SUSPENDED)
    return replace(have, cause=domain.cause, forced=domain.forced)
