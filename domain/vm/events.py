"""What happens to a VM; what is asked of it stands in `verbs/`. `TOPIC` and what was stored stay for ever."""

from typing import Literal

from pydantic import AwareDatetime, Field

from domain.base import Event, Resources
from domain.guest import AddressSource, HostKey
from domain.vm.values import Considered, Console, Phase


class VmEvent(Event):
    """`at` is when it was decided; `operation` the operation it belongs to, if any."""

    at: AwareDatetime
    operation: str | None = None


class VmAsked(VmEvent):
    """An operation was accepted; `cancels` names the one it overtakes."""

    operation: str
    fingerprint: str
    deadline: AwareDatetime
    cancels: str | None = None


class VmUnschedulable(VmEvent):
    TOPIC = "nebula.vm.VmUnschedulable"
    considered: tuple[Considered, ...]


class VmScheduled(VmEvent):
    """Placed on a node. `epoch` fences: a node with an older one must let go."""

    TOPIC = "nebula.vm.VmScheduled"
    node: str
    epoch: int
    deadline: AwareDatetime
    considered: tuple[Considered, ...]
    mac: str | None = Field(
        default=None, description="its MAC address for life; where none is said, it follows from the id"
    )


class VmObserved(VmEvent):
    """Something a node reported; `lease` and `sequence` order the reports of one VM."""

    node: str
    lease: int = 0
    sequence: int


class VmPreparing(VmObserved):
    """The node has begun: fetching the image, making the disk."""

    TOPIC = "nebula.vm.VmPreparing"
    step: str


class VmStarted(VmObserved):
    """`size` is what the domain runs with, `host_boot` the boot of the host; None from a node that does not say.

    Without `address_sources`, as in events of earlier versions, no addresses means that they are as they were.
    """

    TOPIC = "nebula.vm.VmStarted"
    boots: int
    size: Resources | None = None
    host_boot: str | None = None
    addresses: tuple[str, ...] = ()
    address_sources: tuple[AddressSource, ...] | None = None


class VmStopped(VmObserved):
    """`cause`: requested, guest (it powered itself off), crashed, watchdog (which powered it off), or unknown.

    `forced`: its plug was pulled.
    """

    TOPIC = "nebula.vm.VmStopped"
    cause: Literal["requested", "guest", "crashed", "watchdog", "unknown"]
    forced: bool = False


class VmRestartScheduled(VmEvent):
    """It is started again at `due`, for the `attempt`-th time in a row.

    It went off by itself and its policy says so, or it failed at what passes by itself (its node's disk was full).
    """

    TOPIC = "nebula.vm.VmRestartScheduled"
    due: AwareDatetime
    attempt: int


class VmRestartedByPolicy(VmAsked):
    """That time has come: it is to be on again."""

    TOPIC = "nebula.vm.VmRestartedByPolicy"
    attempt: int


class VmPaused(VmObserved):
    TOPIC = "nebula.vm.VmPaused"


class VmResumed(VmObserved):
    """It goes on where it was paused or suspended: the same boot."""

    TOPIC = "nebula.vm.VmResumed"
    addresses: tuple[str, ...] = ()
    address_sources: tuple[AddressSource, ...] | None = None


class VmSuspended(VmObserved):
    """Its memory is on the node's disk."""

    TOPIC = "nebula.vm.VmSuspended"


class VmGuestRebooted(VmObserved):
    """The guest reset itself, or its watchdog did.

    `resets`: how often that happened since its domain was started; `watchdog_resets` of them were its watchdog's doing.
    """

    TOPIC = "nebula.vm.VmGuestRebooted"
    resets: int
    watchdog_resets: int = 0


class VmAddressesChanged(VmObserved):
    """`addresses` are all that the guest has in this boot, perhaps none; `address_sources` who says so."""

    TOPIC = "nebula.vm.VmAddressesChanged"
    addresses: tuple[str, ...]
    address_sources: tuple[AddressSource, ...] | None = None


class VmGuestReady(VmEvent):
    """cloud-init in the guest finished, and the guest said so; at each boot, the guest's own reboots among them.

    `boots`: the boot by whose seed it spoke; `boot`: the guest's own id of this boot. Events of earlier versions say
    neither, and were once for each disk.
    """

    TOPIC = "nebula.vm.VmGuestReady"
    hostname: str | None = None
    host_keys: tuple[HostKey, ...]
    boots: int | None = None
    boot: str | None = None


class VmFailed(VmEvent):
    """It could not be made so. `operation` is the one that failed, if one was pending.

    `phase` is what it is now: failed, or what it is still in where no harm was done.
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
    """Nothing is left of it on any node; its keys are destroyed next. `node` is where it was, if anywhere."""

    TOPIC = "nebula.vm.VmDeleted"
    node: str | None = None


class VmCleared(VmObserved):
    """The node of a forgotten VM came back, and nothing is left of the VM there."""

    TOPIC = "nebula.vm.VmCleared"


class VmConsoleEvent(VmEvent):
    """Of one connection to its console. It says who looks, and changes nothing of the VM."""

    session: str
    console: Console


class VmConsoleOpened(VmConsoleEvent):
    """The event's actor is connected to it. `force`: it may have been taken away from somebody else."""

    TOPIC = "nebula.vm.VmConsoleOpened"
    force: bool = False


class VmConsoleClosed(VmConsoleEvent):
    """The connection lasted so many `seconds`; `why` it ended.

    There is none when its gateway was killed. One without `VmConsoleOpened` could not be recorded in time, and so was
    not opened.
    """

    TOPIC = "nebula.vm.VmConsoleClosed"
    seconds: float
    why: str | None = None


Happened = (
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
"""All that is no verb's own."""
