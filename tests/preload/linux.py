"""The system call that starts a sibling, which Python does not have."""

import ctypes
import os

from runtime.local.linux import prctl

#: As `ctypes.CDLL`, but it keeps the interpreter's lock: nothing of Python runs before a fork is complete.
LIBC = ctypes.PyDLL(None, use_errno=True)

SYS_CLONE3 = 435
CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x8000, 0x0020_0000, 0x0100_0000
PR_GET_TID_ADDRESS = 40


def fork_sibling() -> int:
    """As `os.fork`, but the new process is a child of this one's parent."""
    thread_id = ctypes.c_void_p()
    prctl(PR_GET_TID_ADDRESS, ctypes.addressof(thread_id))
    flags = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID  # the C library knows its thread by that id
    arguments = (ctypes.c_uint64 * 8)(flags, 0, thread_id.value or 0)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = LIBC.syscall(ctypes.c_long(SYS_CLONE3), arguments, ctypes.c_size_t(ctypes.sizeof(arguments)))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid
