"""Under which host names this gateway is served, and from which web sites a browser may call it.

A browser sends `Host` and `Origin` as the page's site makes it. A `Host` that is not ours means that somebody pointed a
name of theirs at this address (DNS rebinding). A foreign `Origin` means that a page of another site sent the call. Both
are refused for every call, with or without credentials.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from functools import lru_cache

from gateway.http.problems import Problem

LOCAL_NAMES = frozenset({"localhost", "ip6-localhost"})
#: The values of `Sec-Fetch-Site` with which a browser says that another site sent the call.
FOREIGN = frozenset({"cross-site", "same-site"})


@dataclass(frozen=True)
class Sites:
    """The host names of a gateway, in lower case, and the origins of other sites that may call it.

    `only_local`: accept calls to loopback addresses and names only.
    """

    names: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    only_local: bool = False

    def judge(self, host: str | None, origin: str | None, fetch_site: str | None, fetch_mode: str | None) -> None:
        """Raises Problem: 421 for a foreign `Host`, 403 for a page of another site."""
        if not self._serves(host):
            if self.only_local:
                detail = "with NEBULA_AUTH=none this gateway serves only its own host"
                raise Problem(403, "foreign_origin", detail)
            detail = "the Host header names another host; call this gateway by its address, or set NEBULA_HTTP_NAMES"
            raise Problem(421, "foreign_host", detail)
        if origin is not None:
            foreign = not (of_host(origin, host) or origin.lower() in self.origins)
        else:  # following a link to a page of ours is no call of another site's page
            foreign = fetch_site in FOREIGN and fetch_mode != "navigate"
        if foreign:
            detail = "a web page of another site sent this call; to allow that site, add it to NEBULA_HTTP_ORIGINS"
            raise Problem(403, "foreign_origin", detail)

    def _serves(self, host: str | None) -> bool:
        name = name_of(host)
        if name is None:
            return True  # no browser leaves it out
        if self.only_local:
            return is_loopback(name)
        return name in self.names or name in LOCAL_NAMES or is_address(name)


def served(host: str, names: str, origins: str, *, only_local: bool) -> Sites:
    """The sites of a gateway that listens on `host`. `names`, `origins`: settings, separated by commas.

    An address as `Host` is always ours: DNS rebinding needs a name.
    """
    own = {host.lower(), socket.gethostname().lower(), *listed(names)}
    return Sites(frozenset(own), frozenset(listed(origins)), only_local)


def listed(setting: str) -> list[str]:
    return [item.strip().lower() for item in setting.split(",") if item.strip()]


def name_of(host: str | None) -> str | None:
    """The name or address in a `Host` header, in lower case, without port and brackets."""
    if host is None:
        return None
    return re.sub(r":[0-9]*$", "", host.strip()).strip("[]").rstrip(".").lower()


def of_host(origin: str, host: str | None) -> bool:
    """Whether a page of this origin is served by the host that is called."""
    return host is not None and origin.split("://", 1)[-1].lower() == host.lower()


@lru_cache(maxsize=1024)
def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether an address or a name can only be reached from this machine."""
    name = host.strip("[]").lower()
    return name in LOCAL_NAMES or (is_address(name) and ipaddress.ip_address(name).is_loopback)
