"""The events of VMs that belong to no verb; the others are in `verbs/`. `TOPIC` and stored fields never change."""

from typing import Literal

from pydantic import AwareDatetime, Field

from domain.base import Event, Resources
from domain.guest import AddressSource, HostKey
from domain.vm.values import Considered, Console, Phase


class VmEvent(Event):
    """`at`: the time of the decision. `operation`: the operation that it belongs to, if any."""

    at: AwareDatetime
    operation: str | None = None


class VmOperationAccepted(VmEvent):
    """An operation was accepted. `cancels`: the id of the operation that it overtakes."""

    operation: str
    fingerprint: str
    deadline: AwareDatetime
    cancels: str | None = None


class VmUnschedulable(VmEvent):
    TOPIC = "nebula.vm.VmUnschedulable"
    considered: tuple[Considered, ...]


class VmScheduled(VmEvent):
    """The VM was placed on a node. A node that has the VM with an older `epoch` must remove it."""

    TOPIC = "nebula.vm.VmScheduled"
    node: str
    epoch: int
    deadline: AwareDatetime
    considered: tuple[Considered, ...]
    mac: str | None = Field(
        default=None, description="its MAC address, which never changes; None: the one derived from the id"
    )


class VmObserved(VmEvent):
    """It was made from a report of a node. `lease` and `sequence` give the order of the reports about one VM."""

    node: str
    lease: int = 0
    sequence: int


class VmPreparing(VmObserved):
    """The node has begun to prepare the VM. `step`: what it does at present, such as getting the image."""

    TOPIC = "nebula.vm.VmPreparing"
    step: str


class VmStarted(VmObserved):
    """The VM runs. `size`: the resources of its domain; `host_boot`: the boot of the host; None if the node's version
    does not report them.

    If `address_sources` is missing, as in events of earlier versions, empty `addresses` mean that they are unchanged.
    """

    TOPIC = "nebula.vm.VmStarted"
    boots: int
    size: Resources | None = None
    host_boot: str | None = None
    addresses: tuple[str, ...] = ()
    address_sources: tuple[AddressSource, ...] | None = None


class VmStopped(VmObserved):
    """The VM is off. `cause`: requested, guest (the guest powered itself off), crashed, watchdog (its watchdog powered
    it off), or unknown. `forced`: the node powered it off without a shutdown.
    """

    TOPIC = "nebula.vm.VmStopped"
    cause: Literal["requested", "guest", "crashed", "watchdog", "unknown"]
    forced: bool = False


class VmRestartScheduled(VmEvent):
    """The VM will be started again at `due`. `attempt`: number of consecutive automatic restarts, with this one.

    The reason: it went off by itself and its restart policy covers the cause, or it failed because its node's disk was
    full.
    """

    TOPIC = "nebula.vm.VmRestartScheduled"
    due: AwareDatetime
    attempt: int


class VmRestartedByPolicy(VmOperationAccepted):
    """The time of an automatic restart has come: the VM is to be on again."""

    TOPIC = "nebula.vm.VmRestartedByPolicy"
    attempt: int


class VmPaused(VmObserved):
    TOPIC = "nebula.vm.VmPaused"


class VmResumed(VmObserved):
    """The VM continues after a pause or a suspension, in the same boot."""

    TOPIC = "nebula.vm.VmResumed"
    addresses: tuple[str, ...] = ()
    address_sources: tuple[AddressSource, ...] | None = None


class VmSuspended(VmObserved):
    """The VM is off, and its memory is saved on the node's disk."""

    TOPIC = "nebula.vm.VmSuspended"


class VmGuestRebooted(VmObserved):
    """The guest or its watchdog reset the VM.

    `resets`: how often that happened since its domain was started; `watchdog_resets`: how often by its watchdog.
    """

    TOPIC = "nebula.vm.VmGuestRebooted"
    resets: int
    watchdog_resets: int = 0


class VmAddressesChanged(VmObserved):
    """`addresses`: all addresses of the guest in this boot, perhaps none; `address_sources`: the same with sources."""

    TOPIC = "nebula.vm.VmAddressesChanged"
    addresses: tuple[str, ...]
    address_sources: tuple[AddressSource, ...] | None = None


class VmGuestReady(VmEvent):
    """cloud-init in the guest has finished, and the guest phoned home. It does so at each boot, its own reboots too.

    `boots`: the boot whose seed it got; `boot`: the guest's own id of this boot. Events of earlier versions have
    neither; there was one for each disk.
    """

    TOPIC = "nebula.vm.VmGuestReady"
    hostname: str | None = None
    host_keys: tuple[HostKey, ...]
    boots: int | None = None
    boot: str | None = None


class VmFailed(VmEvent):
    """The node could not bring the VM to the desired state. `operation`: the operation that failed, if one was pending.

    `phase`: its phase now. It is not `failed` if the guest is unharmed, such as after a failed pause.
    """

    TOPIC = "nebula.vm.VmFailed"
    code: str
    detail: str
    node: str | None = None
    lease: int = 0
    sequence: int = 0
    phase: Phase = Phase.FAILED


class VmLost(VmEvent):
    TOPIC = "nebula.vm.VmLost"
    node: str


class VmOperationTimedOut(VmEvent):
    TOPIC = "nebula.vm.VmOperationTimedOut"
    operation: str
    verb: str


class VmDeleted(VmEvent):
    """Nothing of the VM is left on any node; its keys are destroyed next. `node`: the node where it was, if any."""

    TOPIC = "nebula.vm.VmDeleted"
    node: str | None = None


class VmCleared(VmObserved):
    """The node of a forgotten VM came back, and has removed the VM."""

    TOPIC = "nebula.vm.VmCleared"


class VmConsoleEvent(VmEvent):
    """An event of one connection to the VM's console. It changes nothing of the VM."""

    session: str
    console: Console


class VmConsoleOpened(VmConsoleEvent):
    """The event's actor is connected to the console. `force`: an earlier connection was ended, if there was one."""

    TOPIC = "nebula.vm.VmConsoleOpened"
    force: bool = False


class VmConsoleClosed(VmConsoleEvent):
    """The connection ended after `seconds`, for the reason `why`.

    It is missing if the gateway was killed. A session that has this event and no `VmConsoleOpened` was never connected,
    because its opening could not be recorded in time.
    """

    TOPIC = "nebula.vm.VmConsoleClosed"
    seconds: float
    why: str | None = None


OtherEvents = (
    VmUnschedulable
    | VmScheduled
    | VmPreparing
    | VmStarted
    | VmStopped
    | VmRestartScheduled
    | VmRestartedByPolicy
    | VmPaused
    | VmResumed
    | VmSuspended
    | VmGuestRebooted
    | VmAddressesChanged
    | VmGuestReady
    | VmFailed
    | VmLost
    | VmOperationTimedOut
    | VmDeleted
    | VmCleared
    | VmConsoleOpened
    | VmConsoleClosed
)
"""All events of VMs that do not belong to a verb."""
