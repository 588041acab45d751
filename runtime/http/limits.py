"""The limits of one listener for its clients."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a listener accepts. Sizes are in bytes, times in seconds."""

    #: connections, and those of one address (of one /64 network with IPv6)
    connections: int = 2048
    connections_per_address: int = 512
    #: a request line and its headers; the request's target alone; number of headers
    head: int = 16 * 1024
    target: int = 8 * 1024
    headers: int = 100
    #: a body, and the number of chunks that it may come in
    body: int = 1024 * 1024
    chunks: int = 20_000
    #: time for the head of a request, for its body, and between two requests
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 75.0
    #: time for the beginning of an answer to a client that has closed its sending side: it may have left as a whole
    half_closed_seconds: float = 90.0
