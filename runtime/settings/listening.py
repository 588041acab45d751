"""The settings of processes that serve HTTP."""

from pydantic import Field

from runtime.http.limits import Limits
from runtime.settings.common import Common


class Listening(Common):
    """The limits for clients of a process that serves HTTP."""

    #: maximum number of connections in total, and from one address
    http_connections: int = Field(default=2048, ge=1, le=100_000)
    http_connections_per_address: int = Field(default=512, ge=1, le=100_000)
    #: maximum KiB of a request line and its headers
    http_header_kib: int = Field(default=16, ge=4, le=1024)
    #: maximum seconds for the headers of a request, for its body, and between two requests of a connection
    http_header_seconds: float = Field(default=10.0, gt=0, le=3600)
    http_body_seconds: float = Field(default=60.0, gt=0, le=3600)
    http_idle_seconds: float = Field(default=75.0, gt=0, le=3600)

    @property
    def http_limits(self) -> Limits:
        return Limits(
            connections=self.http_connections,
            connections_per_address=self.http_connections_per_address,
            head=self.http_header_kib * 1024,
            head_seconds=self.http_header_seconds,
            body_seconds=self.http_body_seconds,
            idle_seconds=self.http_idle_seconds,
        )
