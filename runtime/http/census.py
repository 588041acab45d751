"""All connections of a listener: their number, in total and for each address, and their timeouts."""

import asyncio
import contextlib
import ipaddress
import resource
import time
from collections import Counter
from typing import Protocol

from runtime import logs
from runtime.http.limits import Limits
from runtime.http.refusal import Refused

log = logs.get(__name__)

#: Seconds between two checks of all connections.
EVERY = 0.5
#: Minimum number of seconds between two log lines about refused connections.
LOG_EVERY = 60.0
#: So many connections beyond the limit get an answer; further ones are only closed.
ANSWERED = 256


class Member(Protocol):
    def check(self, now: float) -> None:
        """End the connection if it is over its time. `now`: by the clock of the event loop."""


class Census:
    def __init__(self, limits: Limits) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = limits.connections
        # Half of the file descriptors are left for other purposes of the process.
        self.most = most if files == resource.RLIM_INFINITY else max(1, min(most, files // 2))
        self.members: set[Member] = set()
        self._limits = limits
        self._count = 0
        self._of: Counter[str] = Counter()
        self._logged_at = -LOG_EVERY

    @property
    def crowded(self) -> bool:
        """Whether a further connection is closed without an answer."""
        return len(self.members) > self.most + ANSWERED

    def admit(self, address: str) -> str:
        """Count a connection. Returns the key to `leave` with. Raises Refused (503)."""
        key = network(address)
        if self._count >= self.most:
            detail = f"there are already {self._count} connections (NEBULA_HTTP_CONNECTIONS): close some, or try again"
            self._refuse(detail, address)
        if self._of[key] >= self._limits.connections_per_address:
            text = "connections of your address (NEBULA_HTTP_CONNECTIONS_PER_ADDRESS): close some, or try again"
            self._refuse(f"there are already {self._of[key]} {text}", address)
        self._count += 1
        self._of[key] += 1
        return key

    def leave(self, key: str) -> None:
        self._count -= 1
        self._of[key] -= 1
        if not self._of[key]:
            del self._of[key]

    def _refuse(self, detail: str, address: str) -> None:
        now = time.monotonic()
        if now - self._logged_at > LOG_EVERY:
            self._logged_at = now
            log.warning("connections refused", client=address, reason=detail)
        raise Refused(503, "too_many_connections", detail)

    async def watch(self) -> None:
        """Check all connections regularly, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(EVERY)
            now = loop.time()
            for member in list(self.members):
                member.check(now)


def network(address: str) -> str:
    """The key of an address: an IPv4 address, or the /64 network of an IPv6 address, since one host may use all of it.
    IPv4-mapped IPv6 counts as IPv4.
    """
    if ":" not in address:
        return address
    with contextlib.suppress(ValueError):
        found = ipaddress.IPv6Address(address.partition("%")[0])
        return str(found.ipv4_mapped or ipaddress.IPv6Network((found, 64), strict=False))
    return address
