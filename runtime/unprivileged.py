"""Gives up root rights permanently: a process that serves guests has no rights on its host."""

import ctypes
import os
import pwd
from collections.abc import Sequence

from runtime.tasks.patience import CannotRun

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 2, 38


def user(names: Sequence[str]) -> pwd.struct_passwd | None:
    """The first of these users that exists; None if we are not root. Raises CannotRun if none exists."""
    if os.geteuid() != 0:
        return None
    for name in names:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return found
    raise CannotRun(f"there is no user {' or '.join(names)} to run as: useradd --system {names[0]}")


def become(account: pwd.struct_passwd) -> None:
    """Become that user permanently, with its own group only and without capabilities. Raises OSError.

    The parent-death signal is set again, because the kernel clears it when the user changes.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    death = ctypes.c_int()
    libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(death), 0, 0, 0)
    parent = os.getppid()
    os.setgroups([])
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    for option, value in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_PDEATHSIG, death.value)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    if death.value and os.getppid() != parent:  # the parent died meanwhile
        os.kill(os.getpid(), death.value)
