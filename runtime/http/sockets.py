"""Facts that only the socket of a connection knows."""

import asyncio
import os
import socket

#: A connection's state as TCP_INFO has it: reset by the other side.
TCP_CLOSE = 7


def address(transport: asyncio.Transport, name: str) -> tuple[str, int]:
    found = transport.get_extra_info(name)
    return (str(found[0]), int(found[1])) if found else ("", 0)


def is_reset(transport: asyncio.Transport) -> bool:
    """Whether the other side refused what was written to it. Nobody reads after an EOF, so nobody is told."""
    try:
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock:
            return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE
    except (OSError, AttributeError):
        return False
