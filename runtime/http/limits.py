"""The limits of one listener for its clients."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Maximum values. Sizes are in bytes, times in seconds."""

    #: connections in total, and of one address (of one /64 network with IPv6)
    connections: int = 2048
    connections_per_address: int = 512
    #: size of a request line with its headers; size of the request's target; number of headers
    head: int = 16 * 1024
    target: int = 8 * 1024
    headers: int = 100
    #: size of a body, and number of its chunks
    body: int = 1024 * 1024
    chunks: int = 20_000
    #: time for the head of a request, for its body, and between two requests
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 75.0
    #: time until the beginning of an answer for a client that has closed its sending side, and may have left
    half_closed_seconds: float = 90.0
