"""The state of a VM, and changes of it that several events have in common."""

from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from domain.accepted_requests import NONE, AcceptedRequest, Operations
from domain.base import LENIENT, Resources, Sealed, replace
from domain.contract import Desired, Watchdog
from domain.guest import AddressSource, HostKey
from domain.vm.events import VmObserved, VmOperationAccepted
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
    """The state of a VM."""

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
    restart_at: AwareDatetime | None = Field(default=None, description="when it will be restarted automatically")
    restarts: int = Field(default=0, description="number of consecutive automatic restarts")
    ssh_keys: tuple[str, ...] = ()
    user_data: Sealed | None = None
    notices: tuple[Notice, ...] = Field(default=(), description="warnings about its user-data")
    description: str | None = None
    created_by: str | None = Field(default=None, description="the actor who created it")
    disk: int = Field(default=1, description="the number of its disk: 1, and one more for each rebuild")
    disk_made: int = Field(default=0, description="the number of the last disk that it ran on")
    rescue: str | None = Field(default=None, description="in rescue: the image of the rescue disk that it boots from")
    rescue_disk: int = Field(
        default=0, description="the boot with which it last went into rescue; it is the number of the rescue disk"
    )
    own_boots: int = Field(default=0, description="the boot with which it last left rescue")
    running_size: Resources | None = Field(default=None, description="what its domain was started with, if known")
    mac: str | None = None
    node: str | None = None
    epoch: int = 0
    force_after: AwareDatetime | None = None
    grace_seconds: float | None = Field(default=None, description="seconds from the request to `force_after`")
    pending: Pending | None = None
    addresses: tuple[str, ...] = Field(default=(), description="of the guest's present boot")
    address_sources: tuple[AddressSource, ...] = Field(default=(), description="the same with their sources, if known")
    started_at: AwareDatetime | None = None
    first_ready_at: AwareDatetime | None = Field(default=None, description="when a guest was first ready on this disk")
    ready_at: AwareDatetime | None = Field(default=None, description="when a guest was last ready, in any boot")
    ready: Ready | None = Field(default=None, description="the guest's message in the present boot that it is ready")
    booted: int = Field(default=0, description="the value of `boots` that its domain was last started for")
    host_boot: str | None = Field(default=None, description="the boot of the host in which that was, if known")
    resets: int = Field(default=0, description="how often its guest has reset itself since then")
    rebooted_at: AwareDatetime | None = Field(default=None, description="when it last reset itself")
    guest_boots: int = Field(default=0, description="how often its guest has booted in all, as far as it was observed")
    host_keys: tuple[HostKey, ...] = ()
    preparing: str | None = None
    considered: tuple[Considered, ...] = ()
    failure: Failure | None = None
    sequence: int = 0
    lease: int = 0
    forgotten: str | None = Field(default=None, description="the reason why it was forgotten")
    cleared: bool = Field(default=False, description="whether its node has removed it since it was forgotten")
    folder: str | None = Field(default=None, exclude=True, description="of the daemon that had its disk when forgotten")
    restarted_by: tuple[str, ...] = Field(
        default=(), exclude=True, description="the operations of its latest automatic restarts"
    )
    consoles: tuple[str, ...] = Field(default=(), exclude=True, description="the open sessions of its console")
    consoles_ended: tuple[str, ...] = Field(default=(), exclude=True, description="the latest ended sessions")
    flavor: str | None = Field(default=None, description="the flavor that it was made of, if any")
    operations: Operations = NONE


def images_of(vm: Vm) -> tuple[str, ...]:
    """The images that it uses: they cannot be deleted, and its node may get them."""
    return (vm.image,) if vm.rescue is None else (vm.image, vm.rescue)


def own_disk(vm: Vm) -> Vm:
    """From its next boot on, it boots from its own disk."""
    return replace(vm, rescue=None, own_boots=vm.boots)


def new_disk(vm: Vm, disk: int, image: str) -> Vm:
    """From its next boot on, it boots from a new own disk: a new machine, whose guest was never ready."""
    fresh = replace(own_disk(vm), disk=disk, image=image)
    return replace(fresh, first_ready_at=None, ready_at=None, ready=None, host_keys=())


def ready_on_disk(vm: Vm, ready: Ready) -> Vm:
    """The VM after its guest was ready. It counts for its own disk only if the guest booted from that."""
    if of_rescue(vm, ready.boots):
        return vm
    return replace(vm, first_ready_at=vm.first_ready_at or vm.ready_at or ready.at, ready_at=ready.at)


def of_rescue(vm: Vm, boots: int) -> bool:
    """Whether this boot was from a rescue disk."""
    return 0 < vm.rescue_disk <= boots and (vm.rescue is not None or boots < vm.own_boots)


_NOW_PENDING = Pending(
    operation="", verb="", since=datetime.min.replace(tzinfo=UTC), deadline=datetime.min.replace(tzinfo=UTC)
)
"""Template: a copy of it is much faster than validating all fields."""


def pending_of(event: VmOperationAccepted, verb: str) -> Pending:
    return replace(_NOW_PENDING, operation=event.operation, verb=verb, since=event.at, deadline=event.deadline)


def operations_after(vm: Vm, event: VmOperationAccepted, verb: str) -> Operations:
    return vm.operations.insert(event.operation, AcceptedRequest(verb, event.fingerprint))


def with_operation(vm: Vm, event: VmOperationAccepted, verb: str) -> Vm:
    """The VM after an operation that is done when it is accepted."""
    return replace(vm, operations=operations_after(vm, event, verb))


def with_pending(vm: Vm, event: VmOperationAccepted, verb: str) -> Vm:
    """The VM with a new pending operation."""
    return replace(vm, pending=pending_of(event, verb), operations=operations_after(vm, event, verb), restart_at=None)


def with_grace(vm: Vm, at: AwareDatetime, until: AwareDatetime | None) -> Vm:
    """The VM with the time `until` which its guest may shut down; None: no graceful shutdown."""
    grace = None if until is None else (until - at) / timedelta(seconds=1)
    return replace(vm, force_after=until, grace_seconds=grace)


def with_new_boot(vm: Vm) -> Vm:
    """The VM, desired on, with one more boot."""
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


def with_phase(vm: Vm, event: VmObserved, phase: Phase) -> Vm:
    """The VM in a new, desired phase. Its pending operation ends, if the event belongs to it."""
    return replace(
        vm,
        phase=phase,
        pending=None if event.operation else vm.pending,
        preparing=None,
        failure=None,
        sequence=event.sequence,
        lease=event.lease,
    )
