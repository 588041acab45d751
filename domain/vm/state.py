"""A VM as its events tell it, and what several events change alike."""

from datetime import timedelta

from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from domain.base import LENIENT, Resources, Sealed, replace
from domain.contract import Desired, Watchdog
from domain.guest import AddressSource, HostKey
from domain.known import NONE, Known, Operations
from domain.vm.events import VmAsked, VmObserved
from domain.vm.values import (
    Considered,
    Failure,
    Notice,
    Pending,
    Phase,
    Ready,
    RestartPolicy,
    Spec,
)


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Vm:
    """A VM as its events tell it."""

    id: str
    project: str
    name: str
    image: str
    spec: Spec
    phase: Phase
    desired: Desired
    boots: int
    created_at: AwareDatetime
    updated_at: AwareDatetime
    region: str | None = None
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    protected: bool = False
    restart_policy: RestartPolicy = RestartPolicy.NO
    watchdog: Watchdog = Field(default=Watchdog.DISABLED, description="what its domain gets at its next start")
    restart_at: AwareDatetime | None = Field(default=None, description="when its policy starts it again")
    restarts: int = Field(default=0, description="how often in a row its policy has started it")
    ssh_keys: tuple[str, ...] = ()
    user_data: Sealed | None = None
    notices: tuple[Notice, ...] = Field(default=(), description="what its user-data will not do")
    description: str | None = None
    created_by: str | None = Field(default=None, description="the actor who made it")
    disk: int = Field(default=1, description="how often its disk was to be made")
    disk_made: int = Field(default=0, description="the last of its disks that it ran on")
    rescue: str | None = Field(default=None, description="the image that it boots from, its own disk being the second")
    rescue_disk: int = Field(
        default=0, description="the boot that it last went into rescue with; its disk is called so"
    )
    own_boots: int = Field(default=0, description="the boot that it last left rescue with")
    running_size: Resources | None = Field(default=None, description="what its domain was started with, where known")
    mac: str | None = None
    node: str | None = None
    epoch: int = 0
    force_after: AwareDatetime | None = None
    grace_seconds: float | None = Field(default=None, description="what `force_after` was when it was asked for")
    pending: Pending | None = None
    addresses: tuple[str, ...] = Field(default=(), description="of the guest's present boot")
    address_sources: tuple[AddressSource, ...] = Field(default=(), description="who says so, where known")
    started_at: AwareDatetime | None = None
    first_ready_at: AwareDatetime | None = Field(default=None, description="when a guest was first ready on this disk")
    ready_at: AwareDatetime | None = Field(default=None, description="when one was last, in whichever boot")
    ready: Ready | None = Field(default=None, description="what the guest of this very boot has said")
    booted: int = Field(default=0, description="the count of boots that its domain was last started for")
    host_boot: str | None = Field(default=None, description="the boot of the host in which that was, where known")
    resets: int = Field(default=0, description="how often its guest has reset itself since")
    rebooted_at: AwareDatetime | None = Field(default=None, description="when that was last")
    guest_boots: int = Field(default=0, description="how often its guest has booted in all, as far as anybody saw")
    host_keys: tuple[HostKey, ...] = ()
    preparing: str | None = None
    considered: tuple[Considered, ...] = ()
    failure: Failure | None = None
    sequence: int = 0
    lease: int = 0
    forgotten: str | None = Field(default=None, description="why it was taken for gone without its node")
    cleared: bool = Field(default=False, description="its node has let go of it since")
    folder: str | None = Field(default=None, exclude=True, description="where its disk lay when it was forgotten")
    restarted_by: tuple[str, ...] = Field(
        default=(), exclude=True, description="the operations of its last automatic restarts"
    )
    consoles: tuple[str, ...] = Field(default=(), exclude=True, description="the sessions of its console that are open")
    consoles_ended: tuple[str, ...] = Field(default=(), exclude=True, description="the last of those that have ended")
    flavor: str | None = Field(default=None, description="of which it was made, if of one")
    operations: Operations = NONE


def images_of(vm: Vm) -> tuple[str, ...]:
    """The images that it needs: they are not deleted, and its node may have them."""
    return (vm.image,) if vm.rescue is None else (vm.image, vm.rescue)


def own_disk(vm: Vm) -> Vm:
    """Its next boot is from its own disk."""
    return replace(vm, rescue=None, own_boots=vm.boots)


def new_disk(vm: Vm, disk: int, image: str) -> Vm:
    """Its next boot is from a new disk of its own: a new machine, of which no guest has said anything."""
    fresh = replace(own_disk(vm), disk=disk, image=image)
    return replace(fresh, first_ready_at=None, ready_at=None, ready=None, host_keys=())


def ready_on_disk(vm: Vm, ready: Ready) -> Vm:
    """A guest was ready: that is so of the disk that it booted from."""
    if of_rescue(vm, ready.boots):
        return vm
    return replace(vm, first_ready_at=vm.first_ready_at or vm.ready_at or ready.at, ready_at=ready.at)


def of_rescue(vm: Vm, boots: int) -> bool:
    """Whether a boot was one from a rescue disk."""
    return 0 < vm.rescue_disk <= boots and (vm.rescue is not None or boots < vm.own_boots)


def pending_of(event: VmAsked, verb: str) -> Pending:
    return Pending(operation=event.operation, verb=verb, since=event.at, deadline=event.deadline)


def known(vm: Vm, event: VmAsked, verb: str) -> Operations:
    return vm.operations.insert(event.operation, Known(verb, event.fingerprint))


def noted(vm: Vm, event: VmAsked, verb: str) -> Vm:
    """An operation was accepted, and is done."""
    return replace(vm, operations=known(vm, event, verb))


def asked(vm: Vm, event: VmAsked, verb: str) -> Vm:
    """An operation was accepted, and waits."""
    return replace(vm, pending=pending_of(event, verb), operations=known(vm, event, verb), restart_at=None)


def graceful(vm: Vm, at: AwareDatetime, until: AwareDatetime | None) -> Vm:
    """Until when, and for how long, its guest may shut down by itself; until None: nothing is to end gracefully."""
    grace = None if until is None else (until - at) / timedelta(seconds=1)
    return replace(vm, force_after=until, grace_seconds=grace)


def started_anew(vm: Vm) -> Vm:
    """It is to boot once more."""
    phase = vm.phase
    if phase is Phase.FAILED:
        phase = Phase.SCHEDULED if vm.node else Phase.REQUESTED
    return replace(
        vm,
        desired=Desired.ON,
        boots=vm.boots + 1,
        failure=None,
        force_after=None,
        grace_seconds=None,
        phase=phase,
        preparing=None,
    )


def settled(vm: Vm, event: VmObserved, phase: Phase) -> Vm:
    """It is as it was wanted."""
    return replace(
        vm,
        phase=phase,
        pending=None if event.operation else vm.pending,
        preparing=None,
        failure=None,
        sequence=event.sequence,
        lease=event.lease,
    )
