"""The rules of the reconciler, as a pure function of `want` (documents) and `have` (domains): the next step of each VM.

- Level-triggered: each step follows from the current `want` and `have` alone, never from earlier steps. So a step may
  be lost, fail or be carried out twice, and the next plan is still correct. Each VM gets one step at a time.
- A domain is started if there is none, or if it is off and its last start was for a lower `boots` or before the host
  booted. A domain that is off although it was started for the current `boots` has powered itself off: it stays off.
- A domain that runs for a lower `boots` is shut down, and destroyed when its grace period is over (without a grace
  period immediately). Then it is started from the newest document.
- A paused domain is resumed when it should be on, and before it should shut down by itself; it does not matter who
  paused it. If an I/O error paused it, it is resumed only on request; until then the VM reports an error.
- A suspended domain (its memory is on disk) continues from that memory, also after a boot of the host. Its memory is
  deleted only for a forced off, a higher `boots`, or absent.
- Memory on disk while the domain is also in memory is a leftover, stale or half written. It is deleted first: once the
  domain is off, it would look suspended. The same holds for the memory of a domain on an earlier disk, which is
  deleted.
- A domain that is off can be neither paused nor suspended: it stays off.
- A domain on an earlier disk than the document's `disk` is ended (its `boots` is higher, too) and created on a new
  disk. Only a higher `disk` deletes a disk of a VM that is not absent, and it deletes earlier disks only.
- A disk that a domain has run on (`disk_made`) is never made a second time: if it is missing, that is an error.
- Off never creates a domain. Absent removes the domain, then the files.
- A running domain is destroyed for one of three reasons only: off, absent, a higher `boots`.
- Not seen is not off: an unknown power state leads to no step.
- A document that is older than the one the domain was started from is ignored. In the same stream, the later document
  is the newer one, whatever its epoch and generation. Across streams (a stream was created again, or a killed server
  restored a deleted document) epoch and generation decide.
- If a domain runs for a higher `boots` than a later document, it was started from a document that handlers did not
  write. It is restarted, like a domain with a lower `boots`.
- A foreign domain is never changed. If it has the uuid or name of a VM, that VM reports an error.
- The plan has no step for a domain without a document: it is an orphan, which is reported and left untouched.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from domain.contract import NOWHERE, Desired, Power, Wanted
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.reconcile.features import refusal


@dataclass(frozen=True)
class Host:
    """The host of this daemon. `boot_id` changes with each boot of the host."""

    boot_id: str


@dataclass(frozen=True)
class Create:
    """Make what is missing of image, disk and domain, and start the domain. Then earlier disks are deleted."""

    wanted: Wanted

    @property
    def vm(self) -> str:
        return self.wanted.vm


@dataclass(frozen=True)
class Start:
    """Start the domain from the newest document, on its existing disk."""

    wanted: Wanted

    @property
    def vm(self) -> str:
        return self.wanted.vm


@dataclass(frozen=True)
class Persist:
    """Make a running domain persistent: store its configuration, so that libvirt knows it when it is off."""

    vm: str


@dataclass(frozen=True)
class Shutdown:
    """Ask the guest to power off. `remaining`: seconds until it is destroyed."""

    vm: str
    remaining: float


@dataclass(frozen=True)
class Pause:
    """Stop the CPUs of the domain."""

    vm: str


@dataclass(frozen=True)
class Unpause:
    """Let the CPUs run again. `stalled`: an I/O error has stopped them, and may do so again."""

    vm: str
    stalled: bool = False


@dataclass(frozen=True)
class Suspend:
    """Write the memory to disk, and end the domain."""

    wanted: Wanted

    @property
    def vm(self) -> str:
        return self.wanted.vm


@dataclass(frozen=True)
class Restore:
    """Start the domain from its memory on disk."""

    wanted: Wanted

    @property
    def vm(self) -> str:
        return self.wanted.vm


@dataclass(frozen=True)
class Discard:
    """Delete the memory on disk. A suspended domain is then off.

    `leftover`: only if the domain is also in memory. Had it been suspended since, the memory would be the guest's.
    """

    vm: str
    leftover: bool = False


@dataclass(frozen=True)
class Destroy:
    """Power the domain off immediately, by force."""

    vm: str


@dataclass(frozen=True)
class Remove:
    """Delete a domain that is off, and all files of the VM."""

    vm: str


@dataclass(frozen=True)
class Refuse:
    """No step is possible until somebody acts outside of Nebula. `code` and `detail` are reported."""

    vm: str
    code: str
    detail: str


Action = Create | Start | Persist | Shutdown | Pause | Unpause | Suspend | Restore | Discard | Destroy | Remove
Step = Action | Refuse


#: Returns the seconds that a guest still has to shut down by itself.
Remaining = Callable[[Wanted], float]
#: Power states in which the guest has memory, in RAM or on disk.
LIVE = (Power.ON, Power.PAUSED, Power.SUSPENDED)


def plan(want: Mapping[str, Wanted], have: Mapping[str, Have], host: Host, remaining: Remaining) -> list[Step]:
    """The next step of each VM that needs one. A VM that is not in `have` has neither domain nor files."""
    steps = (
        next_step(wanted, have.get(vm) or Have(vm=vm, power=Power.ABSENT), host, remaining)
        for vm, wanted in want.items()
    )
    return [step for step in steps if step is not None]


def next_step(want: Wanted, have: Have, host: Host, remaining: Remaining) -> Step | None:
    """The next step of one VM; None if it is as wanted, its power state is unknown, or its document is stale."""
    if (unsupported := refusal(want.kind, want.features)) is not None:
        return Refuse(want.vm, unsupported.code, unsupported.detail)
    if have.foreign:
        detail = "a domain on the node that Nebula did not create has the uuid or name of this VM; remove or rename it"
        return Refuse(want.vm, "foreign_domain", detail)
    if have.power is Power.UNKNOWN or stale(want, have):
        return None
    if have.remains:
        return Discard(want.vm, leftover=True)
    if have.power is Power.SUSPENDED and have.disk < want.disk:
        return Discard(want.vm)
    match want.desired:
        case Desired.ON:
            return towards_on(want, have, host, remaining)
        case Desired.OFF:
            return towards_off(want, have, remaining) if have.power in LIVE else None
        case Desired.PAUSED:
            return towards_paused(want, have)
        case Desired.SUSPENDED:
            return towards_suspended(want, have)
        case Desired.ABSENT:
            if have.power in (Power.ON, Power.PAUSED):
                return Destroy(want.vm)
            return Remove(want.vm) if have.domain or have.files else None
        case _:
            assert_never(want.desired)


def stale(want: Wanted, have: Have) -> bool:
    """Whether the domain was started from a newer document than this one."""
    if want.place.after(have.place) or want.place == have.place != NOWHERE:
        return False
    return (want.epoch, want.generation) < (have.epoch, have.generation)


def towards_on(want: Wanted, have: Have, host: Host, remaining: Remaining) -> Step | None:
    if not have.domain:
        return Create(want)
    outdated = have.boots < want.boots or (have.boots > want.boots and want.place.after(have.place))
    if outdated and have.power in LIVE:
        return towards_off(want, have, remaining)
    match have.power:
        case Power.ON:
            return None if have.persistent else Persist(want.vm)
        case Power.PAUSED:
            return unpause(want, have)
        case Power.SUSPENDED:
            return Restore(want)
        case Power.OFF | Power.ABSENT | Power.UNKNOWN:
            if have.disk < want.disk:
                return Create(want)
            return Start(want) if outdated or have.host_boot != host.boot_id else None
        case _:
            assert_never(have.power)


def towards_off(want: Wanted, have: Have, remaining: Remaining) -> Step:
    """The next step to end a domain. A guest has to run to shut down by itself."""
    forced = remaining(want) <= 0
    if have.power is Power.SUSPENDED:
        return Discard(want.vm) if forced else Restore(want)
    if not have.persistent:
        return Persist(want.vm)  # otherwise libvirt would forget the domain when it ends
    if forced:
        return Destroy(want.vm)
    if have.power is Power.PAUSED and not have.stalled:
        return Unpause(want.vm)
    return Shutdown(want.vm, remaining=remaining(want))


def towards_paused(want: Wanted, have: Have) -> Step | None:
    match have.power:
        case Power.ON:
            return Pause(want.vm) if have.persistent else Persist(want.vm)
        case Power.PAUSED:
            return None if have.persistent else Persist(want.vm)
        case Power.SUSPENDED:
            return Restore(want)
        case Power.OFF | Power.ABSENT | Power.UNKNOWN:
            return None
        case _:
            assert_never(have.power)


def towards_suspended(want: Wanted, have: Have) -> Step | None:
    if have.power not in (Power.ON, Power.PAUSED):
        return None
    return Suspend(want) if have.persistent else Persist(want.vm)  # only a persistent domain can be suspended


def unpause(want: Wanted, have: Have) -> Step:
    if not have.persistent:
        return Persist(want.vm)
    if have.stalled and not want.resume:
        detail = "the guest is paused because its disk could not be written; free or repair the storage, then resume it"
        return Refuse(want.vm, "io_error", detail)
    return Unpause(want.vm, stalled=have.stalled)
