"""What is said of a VM: its phase, its size, what is pending."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from domain.base import LENIENT, Message, Resources, Value
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
#: Phases of a VM that may wait to be started again by itself.
STARTED_AGAIN = (Phase.STOPPED, Phase.FAILED)
#: Phases of a VM whose domain has a size of its own, from when it was started.
SIZED = (Phase.RUNNING, Phase.PAUSED, Phase.SUSPENDED, Phase.LOST)
#: What is wanted of a VM once nobody waits for anything: that it stays as it is.
AT_REST: Mapping[Phase, Desired] = {
    Phase.RUNNING: Desired.ON,
    Phase.PAUSED: Desired.PAUSED,
    Phase.SUSPENDED: Desired.SUSPENDED,
    Phase.STOPPED: Desired.OFF,
    Phase.FAILED: Desired.OFF,
}


#: Causes of a VM's going off that are failures of its guest.
FAILURES = ("crashed", "watchdog")


class RestartPolicy(StrEnum):
    """What follows when a guest goes off and nobody asked for that."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"

    def covers(self, cause: str) -> bool:
        """Whether a VM that went off for this cause is started again."""
        if self is RestartPolicy.ALWAYS:
            return cause in (*FAILURES, "guest")
        return self is RestartPolicy.ON_FAILURE and cause in FAILURES


class Console(StrEnum):
    """What of a VM somebody can be connected to."""

    SERIAL = "serial"
    VNC = "vnc"


def whole(value: object) -> object:
    """A number without a fraction as an integer, which it is in JSON, however it was written."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Vcpus = Annotated[int, Field(ge=1, le=256), BeforeValidator(whole)]
MemoryMib = Annotated[int, Field(ge=32, le=4 * 1024 * 1024), BeforeValidator(whole)]
DiskGib = Annotated[int, Field(ge=1, le=64 * 1024), BeforeValidator(whole)]


class Spec(Value):
    """The size of a VM. Memory in MiB, disk in GiB."""

    vcpus: Vcpus
    memory_mib: MemoryMib
    disk_gib: DiskGib

    def resources(self) -> Resources:
        return Resources(vcpus=self.vcpus, memory_mib=self.memory_mib, disk_gib=self.disk_gib)


class Considered(Message):
    """A node that placement looked at: the reason it was passed over, or None for the one it took.

    `more`: so many other nodes, which are not named, were passed over for a reason of the same kind.
    """

    node: str
    reason: str | None = None
    more: int = 0


class Notice(Message):
    """Something that its owner should know of what was accepted: it will not do what it seems to."""

    code: str
    detail: str


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Pending:
    """The operation that waits: until `deadline`, then it times out."""

    operation: str
    verb: str
    since: AwareDatetime
    deadline: AwareDatetime


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Ready:
    """What a guest said when it was ready. `unseen`: its node has yet to tell that it rebooted before."""

    at: AwareDatetime
    boots: int
    boot: str | None = None
    unseen: bool = False


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Failure:
    """Why it failed. `again`: the verb that a retry asks for."""

    code: str
    detail: str
    at: AwareDatetime
    again: str = "start"
