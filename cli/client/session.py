"""The parameters of every command of the client: the platform, and how to print."""

import sys
from dataclasses import dataclass
from enum import StrEnum

from cli.client.client import Client
from runtime.text.masking import masked
from runtime.text.plain import plain

DEFAULT_PROJECT = "default"
#: Seconds that a command waits for its operation (`--timeout` changes it).
DEFAULT_TIMEOUT = 1800.0


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True)
class Session:
    """One run of a client command. `project_given` is None if no project was named."""

    api: Client
    output: Output
    project_given: str | None
    #: whether to wait for the operation to end, and for how many seconds
    wait: bool
    timeout: float
    #: Idempotency-Key of the command: it is carried out once, even if it is sent several times
    key: str
    #: printed before each line about progress
    margin: str = ""

    @property
    def project(self) -> str:
        return self.project_given or DEFAULT_PROJECT


def note(text: str) -> None:
    """Print a line about the progress to standard error. Standard output is only for results."""
    sys.stderr.write(f"nebula: {plain(masked(text), keep='')}\n")
    sys.stderr.flush()
