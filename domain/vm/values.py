"""The types of the fields of VMs and their messages: phase, size, pending operation and others."""

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from domain.base import LENIENT, Message, Resources, Value, as_integer
from domain.contract import Desired


class Phase(StrEnum):
    """The observed state of a VM."""

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
#: Phases of a VM that becomes `lost` when its node is lost.
VISIBLE = (Phase.SCHEDULED, Phase.RUNNING, Phase.PAUSED, Phase.SUSPENDED, Phase.STOPPED)
#: Phases of a VM that may wait for an automatic restart.
STARTED_AGAIN = (Phase.STOPPED, Phase.FAILED)
#: Phases of a VM that may have a domain, which keeps the size that it was started with.
SIZED = (Phase.RUNNING, Phase.PAUSED, Phase.SUSPENDED, Phase.LOST)
#: The desired state of a VM without a pending operation: that it stays in its phase.
AT_REST: Mapping[Phase, Desired] = {
    Phase.RUNNING: Desired.ON,
    Phase.PAUSED: Desired.PAUSED,
    Phase.SUSPENDED: Desired.SUSPENDED,
    Phase.STOPPED: Desired.OFF,
    Phase.FAILED: Desired.OFF,
}


#: Causes of `VmStopped` that are failures of the guest.
FAILURES = ("crashed", "watchdog")


class RestartPolicy(StrEnum):
    """Whether a guest that went off without a request is started again."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"

    def covers(self, cause: str) -> bool:
        """Whether a VM that went off for this cause is started again."""
        if self is RestartPolicy.ALWAYS:
            return cause in (*FAILURES, "guest")
        return self is RestartPolicy.ON_FAILURE and cause in FAILURES


class Console(StrEnum):
    """A console of a VM that callers can be connected to."""

    SERIAL = "serial"
    VNC = "vnc"


Vcpus = Annotated[int, Field(ge=1, le=256), BeforeValidator(as_integer)]
MemoryMib = Annotated[int, Field(ge=32, le=4 * 1024 * 1024), BeforeValidator(as_integer)]
DiskGib = Annotated[int, Field(ge=1, le=64 * 1024), BeforeValidator(as_integer)]


class Spec(Value):
    """The size of a VM. Memory in MiB, disk in GiB."""

    vcpus: Vcpus
    memory_mib: MemoryMib
    disk_gib: DiskGib

    def resources(self) -> Resources:
        return _resources(self.vcpus, self.memory_mib, self.disk_gib)


@lru_cache(maxsize=1024)
def _resources(vcpus: int, memory_mib: int, disk_gib: int) -> Resources:
    """VMs have few sizes, and each is asked for several times."""
    return Resources(vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib)


class Considered(Message):
    """A node that placement considered. `reason`: why it was not chosen; None for the chosen node.

    `more`: the number of further nodes, not listed, that were not chosen for the same kind of reason.
    """

    node: str
    reason: str | None = None
    more: int = 0


class Notice(Message):
    """A warning about an accepted request: a part of it will have no effect, or another one than expected."""

    code: str
    detail: str


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Pending:
    """The operation of a VM that has not ended. It times out at `deadline`."""

    operation: str
    verb: str
    since: AwareDatetime
    deadline: AwareDatetime


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Ready:
    """The guest's message that it is ready. `unseen`: it was a reboot that the node has not reported yet."""

    at: AwareDatetime
    boots: int
    boot: str | None = None
    unseen: bool = False


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Failure:
    """Why the VM failed. `again`: the verb that a retry repeats."""

    code: str
    detail: str
    at: AwareDatetime
    again: str = "start"
