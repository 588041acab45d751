"""Requests to the node of a VM, for data that only the node has. They change nothing in the log."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from domain.base import Uuid
from domain.guest_usage import MOST_POINTS, MOST_SECONDS

Cursor = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")]
"""A place in the output of a VM's console: `<number of the log file>-<offset in bytes>`."""


class Question(BaseModel):
    """A request about one VM, on the subject `nebula.nodes.<node>.asks.<verb>`."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    vm: Uuid


class ConsoleLog(Question):
    """The console's output: the last `tail` bytes, or what follows the cursor `after`.

    `wait`: how many seconds to wait for output if there is none after the cursor.
    """

    tail: int = Field(default=0, ge=0)
    after: Cursor | None = None
    wait: float = Field(default=0.0, ge=0, le=60)


class Connection(Question):
    """A connection to the guest's console, over the subjects of a session. `force`: end the present connection."""

    session: str = Field(pattern=r"^[0-9a-f]{32}$")
    actor: str = Field(max_length=255)
    force: bool = False


class UsageWindow(BaseModel):
    """The last `seconds` of a series, as at most `points` averages."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    seconds: float = Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False)
    points: int = Field(ge=1, le=MOST_POINTS)


class UsageQuestion(UsageWindow, Question):
    """What a VM used lately. The answer is a `UsageSeries`."""


class HostUsageQuestion(UsageWindow):
    """What the node itself used lately. The answer is a `UsageSeries`."""
