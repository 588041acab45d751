"""System calls that Python does not have."""

import ctypes
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

#: As `ctypes.CDLL`, but it keeps the interpreter's lock: nothing of Python runs before a fork is complete.
LIBC = ctypes.PyDLL(None, use_errno=True)
LIBC.sbrk.restype = ctypes.c_void_p

SYS_CLONE3 = 435
CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x8000, 0x0020_0000, 0x0100_0000
PR_SET_PDEATHSIG, PR_GET_TID_ADDRESS = 1, 40
PR_SET_MM, PR_SET_MM_MAP = 35, 14


def fork_sibling() -> int:
    """As `os.fork`, but the new process is a child of this one's parent."""
    thread_id = ctypes.c_void_p()
    _prctl(PR_GET_TID_ADDRESS, ctypes.addressof(thread_id))
    flags = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID  # the C library knows its thread by that id
    arguments = (ctypes.c_uint64 * 8)(flags, 0, thread_id.value or 0)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = LIBC.syscall(ctypes.c_long(SYS_CLONE3), arguments, ctypes.c_size_t(ctypes.sizeof(arguments)))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        _fail()
    return pid


def end_with_parent(signal: int) -> None:
    """The kernel sends this process the signal when its parent ends; 0: none."""
    _prctl(PR_SET_PDEATHSIG, signal)


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
    """Make them what `/proc/PID/cmdline` and `/proc/PID/environ` say."""
    line = b"".join(os.fsencode(word) + b"\0" for word in arguments)
    text = line + b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    memory = mmap.mmap(-1, len(text), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(text)
    _shown.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fields = ["", "", "", *Path("/proc/self/stat").read_text().rpartition(")")[2].split()]  # numbered as in proc(5)
    code, data, brk, stack = fields[26:28], fields[45:47], fields[47], fields[28]
    places = [*map(int, (*code, *data, brk)), LIBC.sbrk(ctypes.c_long(0)), int(stack)]
    middle, end = start + len(line), start + len(text)
    made = _Map(*places, start, middle, middle, end, 0, 0, -1)
    _prctl(PR_SET_MM, PR_SET_MM_MAP, ctypes.addressof(made), ctypes.sizeof(made))


def _prctl(option: int, *arguments: int) -> None:
    padded = [*arguments, 0, 0, 0, 0][:4]
    if LIBC.prctl(ctypes.c_int(option), *map(ctypes.c_ulong, padded)) != 0:
        _fail()


def _fail() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
