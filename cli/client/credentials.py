"""Which platform a command speaks to, and the token that belongs to it. A token is sent to its own platform only."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cli.client.errors import Usage
from cli.client.platform_url import platform_url

DEFAULT_URL = "http://127.0.0.1:8700"
#: Files in the home of a platform on this machine: its URL, and its administrator's token.
URL_FILE, TOKEN_FILE = "api.url", "admin.token"


@dataclass(frozen=True)
class Target:
    """A platform. `help` says what to do if the token is missing."""

    url: str
    token: str | None
    help: str = ""


@dataclass(frozen=True)
class Given:
    """The URL and token that one source (the command line, or the environment) gives."""

    url: str | None = None
    token: str | None = None


def target(line: Given, environment: Given, home: Path | None) -> Target:
    """The platform, and the token for it.

    A token on the command line goes to the platform that the command calls. A token in the environment is for the URL
    in the environment; the one that `nebula up` keeps in its home is for that platform. If two URLs mean the same
    platform, the URL that the token belongs to is used: another user of this machine may listen at another address.
    """
    local = next(_local(home), None)
    url = line.url or environment.url or (local.url if local else DEFAULT_URL)
    if line.token is not None:
        return Target(url, line.token)
    if environment.token is not None:
        theirs = environment.url or (local.url if local else DEFAULT_URL)
        if same(url, theirs):
            return Target(theirs, environment.token)
        return Target(url, None, f"NEBULA_TOKEN is for {theirs}; give --token for {url}")
    for mine in _local(home):
        if same(url, mine.url):
            return mine
    known = f"; the one in {TOKEN_FILE} is for {local.url}" if local else ""
    return Target(url, None, f"give the token for {url} (--token, or NEBULA_TOKEN with NEBULA_URL){known}")


def same(one: str, other: str) -> bool:
    """Whether two URLs name the same listener. False for an invalid URL (the client reports it)."""
    try:
        return platform_url(one).same(platform_url(other))
    except Usage:
        return False


def _local(home: Path | None) -> Iterator[Target]:
    """The platforms of this machine: the one in `home` if given, else those where `up` keeps its state."""
    for folder in [home] if home else [Path("/var/lib/nebula"), Path.home() / ".local/share/nebula"]:
        file = folder / URL_FILE
        try:
            token = (folder / TOKEN_FILE).read_text().strip()
            url = file.read_text().strip() if file.exists() else DEFAULT_URL
        except (OSError, UnicodeDecodeError):  # only then it is known whose token it is
            continue
        yield Target(url, token)
