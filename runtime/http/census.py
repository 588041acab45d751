"""All connections of a listener: how many there are, whose they are, and which have waited for too long."""

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

#: Seconds between looks at all connections.
EVERY = 0.5
#: Seconds between two lines in the log about connections that were refused.
COMPLAIN_EVERY = 60.0
#: Connections beyond the limit that are told so; those beyond them are only closed.
TOLD = 256


class Member(Protocol):
    def check(self, now: float) -> None:
        """End what has waited for too long."""


class Census:
    def __init__(self, limits: Limits) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = limits.connections
        # The process needs files for other things too.
        self.most = most if files == resource.RLIM_INFINITY else max(1, min(most, files // 2))
        self.members: set[Member] = set()
        self._limits = limits
        self._count = 0
        self._of: Counter[str] = Counter()
        self._complained = -COMPLAIN_EVERY

    @property
    def crowded(self) -> bool:
        return len(self.members) > self.most + TOLD

    def admit(self, address: str) -> str:
        """Count a connection; the key by which it has to `leave`. Raises Refused (503)."""
        key = network(address)
        if self._count >= self.most:
            self._refuse(f"there are {self._count} connections already (NEBULA_HTTP_CONNECTIONS)", address)
        if self._of[key] >= self._limits.connections_per_address:
            text = "connections of your address already (NEBULA_HTTP_CONNECTIONS_PER_ADDRESS)"
            self._refuse(f"there are {self._of[key]} {text}", address)
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
        if now - self._complained > COMPLAIN_EVERY:
            self._complained = now
            log.warning("connections refused", client=address, reason=detail)
        raise Refused(503, "too_many_connections", detail)

    async def watch(self) -> None:
        """Look after the connections, for as long as the listener is there."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(EVERY)
            now = loop.time()
            for member in list(self.members):
                member.check(now)


def network(address: str) -> str:
    """What counts as one address: with IPv6 a /64, since a host has all of it. IPv4 within IPv6 is IPv4."""
    if ":" not in address:
        return address
    with contextlib.suppress(ValueError):
        found = ipaddress.IPv6Address(address.partition("%")[0])
        return str(found.ipv4_mapped or ipaddress.IPv6Network((found, 64), strict=False))
    return address
