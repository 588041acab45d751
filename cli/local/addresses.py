"""Addresses and ports of the servers that `nebula up` starts."""

import re

from cli.local import home
from runtime.local.child import ServerError, free_port

#: The address at which a listener on all addresses is reached.
REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  (nothing is bound here)


def reached(address: str) -> str:
    """The address at which clients on this host reach a listener, as a URL has it."""
    found = REACHED_AT.get(address, address)
    return f"[{found}]" if ":" in found and not found.startswith("[") else found


def ports(http: int, seed: int, *servers: str) -> list[int]:
    """The ports of the platform, from which no image may be fetched."""
    found = [int(port) for server in servers for port in re.findall(r":([0-9]{1,5})(?=[/,?]|$)", server)]
    return sorted({http, seed, *found})


def chosen(setting: str, port: int, host: str) -> int:
    """The port of a setting; any free one for 0. Raises ServerError if it is in use, or if the host has no `host`."""
    if not home.is_free(host, 0):
        raise ServerError(f"this host has no address {host}")
    port = port or free_port()
    if not home.is_free(host, port):
        raise ServerError(f"{host}:{port} is in use: set {setting} to a free port")
    return port
