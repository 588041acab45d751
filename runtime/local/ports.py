"""Starts of servers on free ports. Another program may take a port between its choice and the start."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from runtime.local.child import ServerError, free_port, require_free

T = TypeVar("T")

#: Choices of ports until the failure of a start is the result.
TRIES = 3


async def on_free_ports(count: int, start: Callable[..., Awaitable[T]]) -> T:
    """The result of `start` on this number of free ports. Other ones are chosen if a start fails, and one of its ports
    is in use by another program then. Raises ServerError.
    """
    tries = TRIES
    while True:
        ports = [free_port() for _ in range(count)]
        tries -= 1
        try:
            return await start(*ports)
        except ServerError:
            if not tries or not any(map(is_taken, ports)):
                raise


def is_taken(port: int) -> bool:
    try:
        require_free(port)
    except ServerError:
        return True
    return False
