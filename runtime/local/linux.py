"""System calls that Python does not have."""

import ctypes
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.sbrk.restype = ctypes.c_void_p

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PR_SET_MM, PR_SET_MM_MAP = 35, 14
CLONE_NEWNS, CLONE_NEWNET = 0x0002_0000, 0x4000_0000
MS_REC, MS_SLAVE = 0x4000, 0x8_0000
MNT_DETACH = 2


def end_with_parent(signal: int) -> None:
    """The kernel sends this process the signal when its parent ends; 0: none. Raises OSError."""
    prctl(PR_SET_PDEATHSIG, signal)


@contextmanager
def adopting() -> Iterator[None]:
    """Within the block, processes of our descendants whose parents end become our children. Raises OSError."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0)


def enter_network(name: str) -> None:
    """Enter a network namespace that `ip netns` has named, as `ip netns exec` does: `/sys` shows its devices.

    Raises OSError.
    """
    file = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        _check(_LIBC.setns(file, CLONE_NEWNET))
    finally:
        os.close(file)
    _check(_LIBC.unshare(CLONE_NEWNS))
    _check(_LIBC.mount(b"", b"/", b"none", ctypes.c_ulong(MS_SLAVE | MS_REC), None))
    _LIBC.umount2(b"/sys", MNT_DETACH)  # a container may have none
    _check(_LIBC.mount(name.encode(), b"/sys", b"sysfs", ctypes.c_ulong(0), None))


class _Map(ctypes.Structure):
    """`struct prctl_mm_map`."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("start_code", "end_code", "start_data", "end_data", "start_brk", "brk")),
        *((name, ctypes.c_uint64) for name in ("start_stack", "arg_start", "arg_end", "env_start", "env_end", "auxv")),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_int32),
    )


#: What the kernel shows of this process: it has to stay where it is.
_shown: list[mmap.mmap] = []


def show(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Make them what `/proc/PID/cmdline` and `/proc/PID/environ` say.

    Raises OSError, always if the kernel was built without CONFIG_CHECKPOINT_RESTORE.
    """
    line = b"".join(os.fsencode(word) + b"\0" for word in arguments)
    text = line + b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    memory = mmap.mmap(-1, len(text), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(text)
    _shown.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fields = ["", "", "", *Path("/proc/self/stat").read_text().rpartition(")")[2].split()]  # numbered as in proc(5)
    code, data, brk, stack = fields[26:28], fields[45:47], fields[47], fields[28]
    places = [*map(int, (*code, *data, brk)), _LIBC.sbrk(ctypes.c_long(0)), int(stack)]
    middle, end = start + len(line), start + len(text)
    made = _Map(*places, start, middle, middle, end, 0, 0, -1)
    prctl(PR_SET_MM, PR_SET_MM_MAP, ctypes.addressof(made), ctypes.sizeof(made))


def prctl(option: int, *arguments: int) -> None:
    """Raises OSError."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    _check(_LIBC.prctl(ctypes.c_int(option), *map(ctypes.c_ulong, padded)))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
