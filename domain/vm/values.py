"""What is said of a VM: its phase, the verbs, its size."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from domain.base import Message, Resources, Value
from domain.contract import Desired


class Phase(StrEnum):
    """What is true of a VM, as far as anybody can see."""

    REQUESTED = "requested"
    UNSCHEDULABLE = "unschedulable"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"
    DELETED = "deleted"


#: Phases of a VM that has no node yet.
WAITING = (Phase.REQUESTED, Phase.UNSCHEDULABLE)
#: Phases in which a node's silence means that nobody can see the VM any more.
VISIBLE = (Phase.SCHEDULED, Phase.RUNNING, Phase.PAUSED, Phase.SUSPENDED, Phase.STOPPED)
#: What is wanted of a VM once nobody waits for anything: that it stays as it is.
AT_REST: Mapping[Phase, Desired] = {
    Phase.RUNNING: Desired.ON,
    Phase.PAUSED: Desired.PAUSED,
    Phase.SUSPENDED: Desired.SUSPENDED,
    Phase.STOPPED: Desired.OFF,
    Phase.FAILED: Desired.OFF,
}


class Verb(StrEnum):
    """What may be asked of a VM as an operation."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    PAUSE = "pause"
    RESUME = "resume"
    SUSPEND = "suspend"
    DELETE = "delete"
    TAG = "tag"
    CHANGE = "change"


class Spec(Value):
    """The size of a VM. Memory in MiB, disk in GiB."""

    vcpus: int = Field(ge=1, le=256)
    memory_mib: int = Field(ge=32, le=4 * 1024 * 1024)
    disk_gib: int = Field(ge=1, le=64 * 1024)

    def resources(self) -> Resources:
        return Resources(vcpus=self.vcpus, memory_mib=self.memory_mib, disk_gib=self.disk_gib)


class Considered(Message):
    """A node that placement looked at: the reason it was passed over, or None for the one it took."""

    node: str
    reason: str | None = None


class HostKey(Message):
    """A public SSH host key of the guest, as the guest itself reported it."""

    type: str
    key: str
    fingerprint: str = Field(description="SHA256:…, as ssh-keygen -l prints it")
