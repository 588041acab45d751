"""The reconciler's rules, as a pure function: what is wanted, what there is, and the next step of each VM.

- Level-triggered. Every step is derived from the whole of want and have, never from what was done before; a step may
  be lost, fail or be carried out twice, and the next plan is right again. One step at a time for each VM.
- A domain is started when there is none, or when it is off and was last started for a lower `boots` or before the
  host itself came up. One that is off although it was started for this very count powered itself off: it stays off.
- A domain that runs for a lower `boots` is shut down, by force once its grace is over (at once where it has none), and
  then started from the newest document.
- One that is paused, by whomever, goes on when it is to be on, and before it is to shut down by itself. Where an I/O
  error paused it, only when somebody asked for that: until then it is an error of that VM.
- One whose memory is on disk (suspended) goes on from there, after a boot of the host too: nothing but a forced off, a
  higher `boots` or absent throws that memory away.
- Memory on disk of a domain that is in memory is left over, stale or half written: it is deleted before anything else,
  for once the domain is off it would be taken for suspended. So is that of a domain on an earlier disk: its disk goes.
- What is off can be neither paused nor suspended: it stays off.
- A domain on an earlier disk than the document counts is ended, by its higher `boots`, and created anew on a new disk.
  Nothing but that higher count ever deletes a disk of a VM that is to stay, and only earlier ones.
- A disk that a domain ran on, as the document knows, is never made a second time: where it is gone, that is an error.
- Off never makes a domain. Absent takes away the domain, then the files.
- The plug of a running domain is pulled for one of three reasons only: off, absent, a higher `boots`.
- Not seen is not off: an unknown power leads to no step.
- A document that is older than the one the domain was started from is refused: no step. One that stands later in the
  same stream is newer, whatever its numbers say. Of any other (the stream was made anew, or a server that was killed
  brought back a document) epoch and generation decide.
- A domain that runs for a higher `boots` than a later document says was started from a document that the handlers did
  not write: it is started anew, like one of a lower count.
- A foreign domain is never touched. Where it sits on a VM's uuid or name, that is an error of that VM.
- A VM without a document is no business of the plan: it is an orphan, reported and left alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from domain.contract import NOWHERE, Desired, Power, Wanted
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.reconcile.features import refusal


@dataclass(frozen=True)
class Host:
    """The machine under the daemon. `boot_id` is another one after each of its boots."""

    boot_id: str


@dataclass(frozen=True)
class Create:
    """Image, disk, domain, running: whatever of it is missing. Earlier disks go once the one that counts is there."""

    wanted: Wanted

    @property
    def vm(self) -> str:
        return self.wanted.vm


@dataclass(frozen=True)
class Start:
    """Start the domain anew, from the newest document, on the disk it has."""

    wanted: Wanted

    @property
    def vm(self) -> str:
        return self.wanted.vm


@dataclass(frozen=True)
class Keep:
    """Store the configuration of a domain that runs and would be forgotten once off."""

    vm: str


@dataclass(frozen=True)
class Shutdown:
    """Ask the guest to power off; `left` is for how long, in seconds."""

    vm: str
    left: float


@dataclass(frozen=True)
class Pause:
    """Make the CPUs stand still."""

    vm: str


@dataclass(frozen=True)
class Unpause:
    """Let the CPUs go on; `stalled`: they stand still because of an I/O error, and may do so again at once."""

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
    """Make the domain go on from its memory on disk."""

    wanted: Wanted

    @property
    def vm(self) -> str:
        return self.wanted.vm


@dataclass(frozen=True)
class Discard:
    """Delete the memory on disk: a suspended domain is then just off."""

    vm: str


@dataclass(frozen=True)
class Destroy:
    """Pull the plug."""

    vm: str


@dataclass(frozen=True)
class Remove:
    """Take away a domain that is off, and all files of the VM."""

    vm: str


@dataclass(frozen=True)
class Refuse:
    """Nothing can be done until somebody acts outside of Nebula."""

    vm: str
    code: str
    detail: str


Action = Create | Start | Keep | Shutdown | Pause | Unpause | Suspend | Restore | Discard | Destroy | Remove
Step = Action | Refuse


#: Seconds that a guest still has to shut down by itself.
Left = Callable[[Wanted], float]
#: A guest that is there, in memory or on disk.
LIVES = (Power.ON, Power.PAUSED, Power.SUSPENDED)


def plan(want: Mapping[str, Wanted], have: Mapping[str, Have], host: Host, left: Left) -> list[Step]:
    """The next step of every VM that needs one. A VM that `have` does not name has neither domain nor files."""
    steps = (
        next_step(wanted, have.get(vm) or Have(vm=vm, power=Power.ABSENT), host, left) for vm, wanted in want.items()
    )
    return [step for step in steps if step is not None]


def next_step(want: Wanted, have: Have, host: Host, left: Left) -> Step | None:
    """The next step of one VM; None when it is as wanted, or when nothing can be said."""
    if (lacks := refusal(want.kind, want.features)) is not None:
        return Refuse(want.vm, lacks.code, lacks.detail)
    if have.foreign:
        detail = "a domain that Nebula did not make has this VM's uuid or name on the node; remove or rename it"
        return Refuse(want.vm, "foreign_domain", detail)
    if have.power is Power.UNKNOWN or stale(want, have):
        return None
    if have.remains or (have.power is Power.SUSPENDED and have.disk < want.disk):
        return Discard(want.vm)
    match want.desired:
        case Desired.ON:
            return towards_on(want, have, host, left)
        case Desired.OFF:
            return towards_off(want, have, left) if have.power in LIVES else None
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


def towards_on(want: Wanted, have: Have, host: Host, left: Left) -> Step | None:
    if not have.domain:
        return Create(want)
    outdated = have.boots < want.boots or (have.boots > want.boots and want.place.after(have.place))
    if outdated and have.power in LIVES:
        return towards_off(want, have, left)
    match have.power:
        case Power.ON:
            return None if have.kept else Keep(want.vm)
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


def towards_off(want: Wanted, have: Have, left: Left) -> Step:
    """The end of a domain that lives. To shut down by itself a guest has to run."""
    forced = left(want) <= 0
    if have.power is Power.SUSPENDED:
        return Discard(want.vm) if forced else Restore(want)
    if not have.kept:
        return Keep(want.vm)  # or its end would look as if it had never been
    if forced:
        return Destroy(want.vm)
    if have.power is Power.PAUSED and not have.stalled:
        return Unpause(want.vm)
    return Shutdown(want.vm, left=left(want))


def towards_paused(want: Wanted, have: Have) -> Step | None:
    match have.power:
        case Power.ON:
            return Pause(want.vm) if have.kept else Keep(want.vm)
        case Power.PAUSED:
            return None if have.kept else Keep(want.vm)
        case Power.SUSPENDED:
            return Restore(want)
        case Power.OFF | Power.ABSENT | Power.UNKNOWN:
            return None
        case _:
            assert_never(have.power)


def towards_suspended(want: Wanted, have: Have) -> Step | None:
    if have.power not in (Power.ON, Power.PAUSED):
        return None
    return Suspend(want) if have.kept else Keep(want.vm)  # only a domain that is known when off can be suspended


def unpause(want: Wanted, have: Have) -> Step:
    if not have.kept:
        return Keep(want.vm)
    if have.stalled and not want.resume:
        detail = "the guest stands still since its disk could not be written; free or mend the storage, then resume it"
        return Refuse(want.vm, "io_error", detail)
    return Unpause(want.vm, stalled=have.stalled)
