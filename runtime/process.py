"""The identity of a process: a random id, and facts by which other processes on this host can check that it has ended.

A process id may be reused, so the start time of the process is part of its identity. Both are valid within one boot of
a kernel and one PID namespace. Other hosts cannot check them.
"""

import os
import socket
import time
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_BOOT = Path("/proc/sys/kernel/random/boot_id")
#: States of a process that has ended, but that its parent has not waited for.
ENDED = ("Z", "X")


class Process(BaseModel):
    """The identity of a process. `id`: random; `host`, `pid`: for people."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    host: str = Field(max_length=255)
    pid: int = Field(ge=1, lt=2**31)
    #: boot id of the kernel, PID namespace, and start time of the process in clock ticks since that boot
    boot: str = Field(max_length=64)
    namespace: str = Field(max_length=64)
    began: int = Field(ge=0, le=2**63 - 1)


def this() -> Process:
    """The identity of this process, with a new id."""
    boot, namespace = _here()
    state = _state(os.getpid())
    return Process(
        id=uuid.uuid4().hex,
        host=socket.gethostname()[:255],
        pid=os.getpid(),
        boot=boot,
        namespace=namespace,
        began=state[1] if state is not None else 0,
    )


def has_ended(other: Process) -> bool:
    """Whether the process is known to have ended. False if that cannot be known here."""
    boot, namespace = _here()
    if not boot or (other.boot, other.namespace) != (boot, namespace):
        return False
    state = _state(other.pid)
    if state is None:
        return not _is_there(other.pid)
    return state[0] in ENDED or state[1] != other.began


def clock() -> float:
    """Seconds of a clock that also counts while the process is stopped or the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _here() -> tuple[str, str]:
    """The boot id of the kernel, and the PID namespace; empty texts if they cannot be read."""
    try:
        return _BOOT.read_text().strip(), str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "", ""


def _is_there(pid: int) -> bool:
    """Whether there is a process with this id, also if /proc hides processes of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _state(pid: int) -> tuple[str, int] | None:
    """The state of a process, and its start time in clock ticks; None if there is no process with this id."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return words[0], int(words[19])
