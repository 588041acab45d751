"""A simulated host: its domains and their guests, and what befalls them by themselves, with no hypervisor asked.

What there is of a domain is an immutable `Domain`; whatever happens to it, by a call (`simulator.py`) or by itself
(here), is one replacement of it, written to the host_store: guests outlive the process as real ones outlive the daemon.

- A domain that is not kept is gone once it is off.
- For a guest that stands still, in memory (paused) or on disk (suspended), time does as well.
- Why a domain is off is known until the hypervisor is restarted.
- Every change of a domain is an event for those who watch; after a loss of contact anything may have changed.

How often what befalls them is for `random_faults.py` to say.
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
"""What the agent in a guest does, once the guest is up."""


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
    hostname: str = ""
    agent: Agent = "answers"
    #: how often the guest has reset itself
    resets: int = 0
    watchdog: Watchdog = Watchdog.DISABLED

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
    forced: bool = False
    ours: bool = True


_DOMAIN = TypeAdapter(Domain)


Up = Callable[[str, int, int, str], None]
"""Called with a VM's id, count of boots and of resets, and seed URL when its guest is up; perhaps more than once."""


class SimulatedHost:
    """Make it inside a running event loop."""

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
        """Another one after each boot."""
        return f"{self.name}-boot-{self._boot}"

    def close(self) -> None:
        """Nothing moves any more in here. The host_store keeps the guests, and time goes on for them."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    # ── what there is ───────────────────────────────────────────────────────────────────────────────────────────────

    def all(self) -> dict[str, Have]:
        """Every domain of ours, by VM id."""
        return {domain.uuid: _have(domain) for domain in self._domains.values() if domain.ours}

    def ours(self, vm: str) -> Domain | None:
        domain = self._domains.get(vm)
        return domain if domain is not None and domain.ours else None

    def in_memory(self, vm: str) -> tuple[Domain, Run] | None:
        """A domain of ours whose guest is in memory."""
        domain = self.ours(vm)
        return (domain, domain.run) if domain is not None and domain.run is not None else None

    def look(self, vm: str) -> Have:
        if (domain := self._domains.get(vm)) is not None:
            return _have(domain)
        name = domain_name(vm)
        foreign = any(domain.name == name for domain in self._domains.values() if not domain.ours)
        return Have(vm=vm, power=Power.ABSENT, foreign=foreign)

    def running(self) -> list[str]:
        """The VMs whose domains run."""
        return [domain.uuid for domain in self._domains.values() if domain.ours and domain.run is not None]

    def boots(self, vm: str) -> tuple[int, int]:
        """The count that a VM's domain runs for, and how often its guest reset itself; none when it does not run."""
        found = self.in_memory(vm)
        return (found[1].tag.boots, found[1].resets) if found is not None else (0, 0)

    # ── what changes ────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, domain: Domain) -> None:
        """This is what there is from now on of a domain; everybody hears of it."""
        if domain.run is None and domain.kept is None:
            self._domains.pop(domain.uuid, None)
            self._host_store.remove(self.name, DOMAIN, domain.uuid)
        else:
            self._domains[domain.uuid] = domain
            self._host_store.put(self.name, DOMAIN, domain.uuid, _DOMAIN.dump_json(domain).decode())
        self._follow(domain)
        self._nudge(domain.uuid)

    def end(self, vm: str, cause: Literal["guest", "crashed"] | None) -> None:
        """A running domain of ours is off, by force where nothing in it was the cause; one never kept is gone."""
        if (found := self.in_memory(vm)) is not None:
            self.put(replace(found[0], run=None, cause=cause, forced=cause is None))

    def watch(self, nudge: Nudge, reset: Reset = ignore, fired: Fired = ignore) -> None:
        """Tell of every change from now on; the earlier one watches, the earlier it hears of it."""
        self._watchers[nudge] = (reset, fired)

    def unwatch(self, nudge: Nudge) -> None:
        del self._watchers[nudge]

    # ── what befalls guests and the host ────────────────────────────────────────────────────────────────────────────

    def power_off(self, vm: str) -> None:
        """The guest powers itself off, unless it stands still."""
        if (found := self.in_memory(vm)) is not None and found[1].still is None:
            self.end(vm, "guest")

    def crash(self, vm: str) -> None:
        """QEMU dies."""
        self.end(vm, "crashed")

    def reset(self, vm: str, seconds: float = 0.0) -> None:
        """The guest boots anew by itself, and is up after so many seconds."""
        if (found := self.in_memory(vm)) is not None and found[1].still is None:
            domain, run = found
            again = replace(run, up_at=time.time() + seconds, off_at=None, agent="answers", resets=run.resets + 1)
            self.put(replace(domain, run=again))
            for told, _ in list(self._watchers.values()):
                told(vm)

    def hang(self, vm: str) -> None:
        """The guest hangs, so that it feeds its watchdog no more: which acts, where it has one."""
        if (found := self.in_memory(vm)) is None or found[1].still is not None:
            return
        action = found[1].watchdog
        if action is Watchdog.DISABLED:
            return
        for _, told in list(self._watchers.values()):
            told(vm, action)
        if action is Watchdog.RESET:
            self.reset(vm)
        else:
            self.crash(vm)  # QEMU ends at once: nothing tells it from one that died

    def stall(self, vm: str) -> None:
        """The guest's disk cannot be written: it is paused."""
        if (found := self.in_memory(vm)) is not None:
            domain, run = found
            self.put(replace(domain, run=run.stand(time.time(), stalled=True)))

    def agent_is(self, vm: str, agent: Agent) -> None:
        """The guest's agent is stopped, hangs, or answers again; until the next boot."""
        if (found := self.in_memory(vm)) is not None:
            self.put(replace(found[0], run=replace(found[1], agent=agent)))

    def leave_memory(self, vm: str) -> None:
        """The hypervisor's own process dies while it writes a guest's memory: the guest runs on, and the file stays."""
        if (found := self.in_memory(vm)) is not None and found[0].kept is not None:
            self.put(replace(found[0], saved=found[1], saved_at=time.time()))

    def vanish(self, vm: str) -> None:
        """Somebody takes the domain away, running or not."""
        if (domain := self.ours(vm)) is not None:
            self.put(replace(domain, run=None, kept=None, saved=None))

    def restart(self) -> None:
        """The hypervisor's own process starts anew: guests run on; why others are off, it does not know any more."""
        for domain in list(self._domains.values()):
            if domain.cause is not None or domain.forced:
                self.put(replace(domain, cause=None, forced=False))
        self._nudge(None)

    def reboot(self) -> None:
        """The host loses its power and comes up again: nothing runs, and what was not kept is gone."""
        self._boot += 1
        self._host_store.put(self.name, HOST, "boot", str(self._boot))
        for domain in list(self._domains.values()):
            self.put(replace(domain, run=None, cause=None, forced=False))

    def define_foreign(self, uuid: str, name: str) -> None:
        """Somebody else makes a domain."""
        self.put(Domain(uuid, name, kept=Tag(0, 0, 0, ""), ours=False))

    # ── how it is done ──────────────────────────────────────────────────────────────────────────────────────────────

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
            self._at(run.up_at, domain.uuid, self._up, domain.uuid, run.tag.boots, run.resets, run.seed_url)

    def _at(self, when: float, uuid: str, act: Callable[..., None], *arguments: object) -> None:
        wait = max(0.0, when - time.time())
        self._timers[uuid] = asyncio.get_running_loop().call_later(wait, act, *arguments)

    def _nudge(self, vm: str | None) -> None:
        for nudge in list(self._watchers):
            nudge(vm)


def remembered(host_store: HostStore, node: str) -> dict[str, Have]:
    """The domains of a simulated host, by VM id, as its host_store has them: for those who look on."""
    domains = (_DOMAIN.validate_json(body) for body in host_store.all(node, DOMAIN).values())
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
        place=tag.place,
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
    return replace(seen, cause=domain.cause, forced=domain.forced)
