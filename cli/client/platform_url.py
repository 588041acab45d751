"""The URL of a platform: parsed once, and refused if it could mean two things."""

import re
from dataclasses import dataclass

from cli.client.errors import Usage
from runtime.text.masking import masked

PORTS = {"http": 80, "https": 443}
#: Names of this machine, all with the same meaning.
HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})

_URL = re.compile(
    r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9_~-]+(?:\.[a-z0-9_~-]+)*\.?)(?::([0-9]{1,5}))?(/[!-~]*)?",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class PlatformUrl:
    """A listener, and the path below which the platform is served. `host` is as in the URL, in lower case."""

    scheme: str
    host: str
    port: int
    base: str

    @property
    def url(self) -> str:
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.base}"

    def same(self, other: "PlatformUrl") -> bool:
        """Whether both are the same listener; all names of this machine count as one."""
        here, there = ("here" if each.host in HERE else each.host for each in (self, other))
        return (here, self.scheme, self.port, self.base) == (there, other.scheme, other.port, other.base)


def platform_url(url: str) -> PlatformUrl:
    """Parse a URL. Raises Usage, which says what is wrong and leaves out a password in the URL."""
    found = _URL.fullmatch(url)
    if found is None or "?" in url or "#" in url:
        raise Usage(f"not the URL of a platform: {masked(url)!r} ({_help(url)})")
    scheme, host, port, base = found[1].lower(), found[2].lower(), found[3], found[4] or ""
    number = int(port) if port else PORTS[scheme]
    if not 0 < number < 65536:
        raise Usage(f"not the URL of a platform: {url!r} (a port is 1 to 65535)")
    return PlatformUrl(scheme, host, number, base.rstrip("/"))


def _help(url: str) -> str:
    if "@" in url:
        return "without user and password: a token is given by --token or NEBULA_TOKEN"
    if not url.isascii():
        return "in ASCII; a name of other letters in its form xn--…"
    if "?" in url or "#" in url:
        return "without ? and #"
    return "for example http://127.0.0.1:8700"
