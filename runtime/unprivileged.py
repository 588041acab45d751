"""Gives up root rights permanently: a process that serves guests has no rights on its host."""

import contextlib
import ctypes
import grp
import os
import pwd
import zlib
from typing import NamedTuple

from runtime.tasks.patience import CannotRun

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 2, 38


#: The user ids, and their number, that systemd gives to services without a user of their own (`DynamicUser`).
FIRST, NUMBER = 61184, 4336


class Account(NamedTuple):
    """A user without rights, who is nobody else on this host."""

    name: str
    uid: int
    gid: int


def account(name: str) -> Account | None:
    """The account of a part of the platform; None if we are not root. Raises CannotRun if its user is root.

    It is the user of that name, if the host has one. Otherwise it is an id that belongs to no user: the files and
    processes of `nobody` are not safe from other programs that run as `nobody`.
    """
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        start = zlib.crc32(name.encode())
        free = next(id_ for step in range(NUMBER) if not _taken(id_ := FIRST + (start + step) % NUMBER))
        return Account(name, free, free)
    if found.pw_uid == 0:
        raise CannotRun(f"the user {name} is root: give it a user id of its own")
    return Account(name, found.pw_uid, found.pw_gid)


def _taken(id_: int) -> bool:
    """Whether a user or a group has this id."""
    for of in (pwd.getpwuid, grp.getgrgid):
        with contextlib.suppress(KeyError):
            of(id_)
            return True
    return False


def become(account: Account) -> None:
    """Become that user permanently, with its own group only and without capabilities. Raises OSError.

    The parent-death signal is set again, because the kernel clears it when the user changes.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    death = ctypes.c_int()
    libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(death), 0, 0, 0)
    parent = os.getppid()
    os.setgroups([])
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    for option, value in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_PDEATHSIG, death.value)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    if death.value and os.getppid() != parent:  # the parent died meanwhile
        os.kill(os.getpid(), death.value)
