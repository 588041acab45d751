"""A call of the API: a command (`Action`) or a read (`Read`)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from domain.access import Permission
from gateway import bodies
from gateway.state import Gateway

AnyBody = bodies.Body
Function = Callable[[Gateway, Request], Awaitable[Response]]


@dataclass(frozen=True)
class Action:
    """One command of the API. `kind` is also the name of the path parameter that holds the resource's id.

    `permission`: what the caller has to be allowed to do.
    """

    method: str
    path: str
    kind: str
    verb: str
    summary: str
    body: type[AnyBody]
    permission: Permission

    @property
    def creates(self) -> bool:
        return f"{{{self.kind}}}" not in self.path


@dataclass(frozen=True)
class Read:
    """One thing that can be read, or done without a command: by which function, with which parameters, shown how.

    `statuses`: what it may be refused with, besides what any call may be. `unwell`: what it answers with 503, when that
    is no problem document.
    """

    path: str
    function: Function
    summary: str
    parameters: tuple[str, ...] = ()
    answer: Any = None
    listed: bool = False
    method: str = "GET"
    body: type[bodies.Body] | None = None
    statuses: tuple[int, ...] = ()
    unwell: Any = None
