"""Which processes there are, for tests that have to know."""

import os
from pathlib import Path

from runtime.local.child import command_line


def children(program: str, *arguments: str, of: int | None = None) -> list[int]:
    """The numbers of a process's children (ours, by default) that run a program with these among its arguments."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [
        number
        for number in numbers
        if _runs(command_line(number), program, arguments) and _parent(number) == (of or os.getpid())
    ]


def children_of(number: int) -> list[int]:
    """The numbers of all children of a process."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and _parent(int(name)) == number]


def alive(number: int) -> bool:
    """Whether there is such a process, other than to be waited for."""
    return any(command_line(number))


def _runs(words: list[str], program: str, arguments: tuple[str, ...]) -> bool:
    return bool(words) and Path(words[0]).name == program and set(arguments) <= set(words)


def _parent(number: int) -> int | None:
    try:
        return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None
