"""The status of a process of the platform, which it publishes every second. Nodes send heartbeats instead."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BeforeValidator, Field

from domain.base import Message
from domain.contract.values import BootId, Counter, Json, Position, one_line

#: Maximum number of managers of one process, and of failing items that are listed for one manager.
MOST_MANAGERS, MOST_ITEMS = 64, 20
#: Maximum number of characters of an error's text.
MOST_ERROR = 300

RoleName = Literal["gateway", "handlers", "projections", "guest-data"]
Line = Annotated[str, BeforeValidator(one_line)]
Error = Annotated[str, BeforeValidator(lambda text: one_line(text, MOST_ERROR))]


class RoleProcess(Message):
    """Identifies a process. `id` is random; `host` and `pid` are for people."""

    id: BootId
    host: Line
    pid: Counter


class ManagerStatus(Message):
    """The status of one manager in one handlers process."""

    name: Line
    works: bool = Field(description="whether it runs in this process; otherwise it stands by")
    everywhere: bool = Field(description="whether it runs in every handlers process, without the lease")
    period: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    last_run: AwareDatetime | None = None
    last_success: AwareDatetime | None = None
    last_error: Error | None = None
    failing_since: AwareDatetime | None = None
    running: Counter = 0
    backing_off: Counter = 0
    items: Annotated[tuple[Line, ...], Field(max_length=MOST_ITEMS)] = Field(
        default=(), description="some items that fail"
    )


class LogHealth(Message):
    """Whether a document could be stored beside the log; if not, why and since when."""

    status: Literal["ok", "unavailable"]
    detail: Error | None = None
    since: AwareDatetime | None = None


class HandlersHealth(Message):
    """What handlers answer to a health check. `process`: which one answered; `malformed`: what it counted, by source.

    What is said of each manager is passed on as it came: a newer version may say more.
    """

    log: LogHealth
    managers: Annotated[tuple[dict[str, Json], ...], Field(max_length=MOST_MANAGERS)]
    process: Line = ""
    malformed: dict[str, Json] = Field(default_factory=dict)


class PastStatus(Message):
    """How far the rows of the past are, and why they could not be written, since when."""

    position: Position
    last_error: Error | None = None
    failing_since: AwareDatetime | None = None


class RoleStatus(Message):
    """The status of one process. `holder`: the process that has the lease of the managers, as far as this one knows."""

    role: RoleName
    process: RoleProcess
    began: AwareDatetime
    version: Line = Field(default="", description="version of its programs; empty if it is one that does not say so")
    ends: bool = Field(default=False, description="whether it is shutting down")
    position: Position | None = Field(default=None, description="position of the last event that it has processed")
    last_success: AwareDatetime | None = None
    last_error: Error | None = None
    failing_since: AwareDatetime | None = None
    holder: RoleProcess | None = None
    managers: Annotated[tuple[ManagerStatus, ...], Field(max_length=MOST_MANAGERS)] = ()
    past: PastStatus | None = Field(default=None, description="of projections that keep the past")
