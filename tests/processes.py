"""Which processes there are, for tests that have to know."""

import os

from runtime.child import command_line


def running(*arguments: str) -> list[int]:
    """The numbers of the processes with all of these on their command line, once they are the program they name."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [number for number in numbers if _is(command_line(number), arguments)]


def _is(words: list[str], arguments: tuple[str, ...]) -> bool:
    return words[:1] == list(arguments[:1]) and set(arguments) <= set(words)
