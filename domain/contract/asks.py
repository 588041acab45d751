"""What is asked of the node that a VM is on, about what only the node knows. It changes nothing that the log tells."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from domain.base import Uuid

Cursor = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")]
"""A place in what a VM wrote to its console: the number of its log, and an offset there."""


class Question(BaseModel):
    """About one VM. Each question has a subject of its own: `nebula.nodes.<node>.asks.<verb>`."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    vm: Uuid


class ConsoleLog(Question):
    """`tail`: that many bytes from the end; `after`: what follows on a cursor. `wait`: seconds, while there is none."""

    tail: int = Field(default=0, ge=0)
    after: Cursor | None = None
    wait: float = Field(default=0.0, ge=0, le=60)


class Connection(Question):
    """A connection to the guest, over the subjects of a session. `force` takes the console away from who has it."""

    session: str = Field(pattern=r"^[0-9a-f]{32}$")
    actor: str = Field(max_length=255)
    force: bool = False
