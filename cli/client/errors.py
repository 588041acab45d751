"""The errors of a command: the text for people, and the exit status for scripts."""

from enum import IntEnum
from typing import Any, ClassVar

from runtime.text.plain import plain


class Exit(IntEnum):
    """The exit statuses of `nebula`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMED_OUT = 4
    INTERRUPTED = 130


class CliError(Exception):
    """Ends the command. The text is for people: what is wrong, then, on further lines, what would help."""

    exit: ClassVar[Exit] = Exit.FAILED


class Usage(CliError):
    """The command line is wrong."""

    exit = Exit.USAGE


class Unreachable(CliError):
    """No answer, or one that says "not now". It is unknown whether a command was carried out.

    `retry_after` is how many seconds the server asked us to wait, if it did.
    """

    exit = Exit.UNREACHABLE

    def __init__(self, text: str, retry_after: float = 0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class TimedOut(CliError):
    """It did not happen in time. It may still happen."""

    exit = Exit.TIMED_OUT


class Interrupted(CliError):
    """Ctrl-C."""

    exit = Exit.INTERRUPTED


class Refused(CliError):
    """The platform refused: an RFC 9457 problem, from the answer to a request or from a failed operation."""

    def __init__(self, problem: dict[str, Any]) -> None:
        detail = problem.get("detail") or problem.get("title") or "the platform gives no reason"
        code = problem.get("code") or problem.get("status")
        listed = problem.get("errors")
        named = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        errors = [f"{each.get('field', '?')}: {each.get('detail', '')}" for each in named]
        fields = [f"  {each}" for each in errors if each not in str(detail)]
        lines = [f"{detail} ({code})" if code else str(detail), *fields]
        super().__init__("\n".join(plain(each, keep="") for each in lines))
        self.code = str(problem.get("code", ""))
        status = problem.get("status")
        self.status = status if isinstance(status, int) else 0
