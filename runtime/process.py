"""This process, in words that others can check: a name of its own, and what tells on this host whether it has ended.

A process number may be handed out again, so the time of its start belongs to it. Both count within one boot of a kernel
and one namespace of process numbers. Who is elsewhere cannot tell, and does not guess.
"""

import os
import socket
import time
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_BOOT = Path("/proc/sys/kernel/random/boot_id")
#: States of a process that runs no more, though its parent has yet to take note of it.
OVER = ("Z", "X")


class Process(BaseModel):
    """`id`: random, of this very process. `host` and `pid` are for people."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    host: str = Field(max_length=255)
    pid: int = Field(ge=1, lt=2**31)
    #: the boot of the kernel, the namespace of the number, and when the process began, in ticks since that boot
    boot: str = Field(max_length=64)
    namespace: str = Field(max_length=64)
    began: int = Field(ge=0, le=2**63 - 1)


def this() -> Process:
    """This process, under a new id."""
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
    """Whether it is known to have ended: False where that cannot be known here."""
    boot, namespace = _here()
    if not boot or (other.boot, other.namespace) != (boot, namespace):
        return False
    state = _state(other.pid)
    if state is None:
        return not _is_there(other.pid)
    return state[0] in OVER or state[1] != other.began


def clock() -> float:
    """Seconds that go on while the process or its host stands still."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _here() -> tuple[str, str]:
    """The boot of the kernel, and the namespace of process numbers; empty where that cannot be read."""
    try:
        return _BOOT.read_text().strip(), str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "", ""


def _is_there(pid: int) -> bool:
    """Whether there is a process by that number, also where other users' processes are hidden in /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _state(pid: int) -> tuple[str, int] | None:
    """The state of a process, and when it began; None where there is none by that number."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return words[0], int(words[19])
