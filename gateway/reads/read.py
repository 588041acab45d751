"""A row of the table of reads: what can be read, or done without a command, and how the answer is shown."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from gateway.state import Gateway

Function = Callable[[Gateway, Request], Awaitable[Response]]


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
    body: type[BaseModel] | None = None
    statuses: tuple[int, ...] = ()
    unwell: Any = None
