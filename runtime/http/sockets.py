"""Data that only the socket of a connection has."""

import asyncio
import os
import socket

#: The state in TCP_INFO of a connection that the other side has reset.
TCP_CLOSE = 7


def address(transport: asyncio.Transport, name: str) -> tuple[str, int]:
    found = transport.get_extra_info(name)
    return (str(found[0]), int(found[1])) if found else ("", 0)


def is_reset(transport: asyncio.Transport) -> bool:
    """Whether the other side has reset the connection. After an EOF asyncio does not read, and so
    does not notice it.
    """
    try:
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock:
            return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE
    except (OSError, AttributeError):
        return False
