"""A row of the table of reads. A read is a call that is not a command."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from domain.access import Permission
from gateway.state import Gateway

Function = Callable[[Gateway, Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Read:
    """A call that is not a command: its path, permission, function, parameters, and the type of its answer.

    `statuses`: statuses of refusals, in addition to those of every call. `unavailable`: the type of its answer with
    503, if that is not a problem document. `redirects`: it leads a browser elsewhere, and another site
    may have made its query: its function judges that.
    """

    path: str
    permission: Permission
    function: Function
    summary: str
    parameters: tuple[str, ...] = ()
    answer: Any = None
    listed: bool = False
    method: str = "GET"
    body: type[BaseModel] | None = None
    statuses: tuple[int, ...] = ()
    unavailable: Any = None
    redirects: bool = False
