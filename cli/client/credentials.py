"""Which platform a command speaks to, and the token that belongs to it. A token is sent to its own platform only."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cli.client.contexts import Context, Contexts, Store
from cli.client.errors import Usage
from cli.client.platform_url import platform_url

DEFAULT_URL = "http://127.0.0.1:8700"
#: Files in the home of a platform on this machine: its URL, and its administrator's token.
URL_FILE, TOKEN_FILE = "api.url", "admin.token"
#: The authority (PEM) of such a platform, if it speaks TLS.
CA_FILE = "api.ca"


def default_homes() -> list[Path]:
    """Where `nebula up` keeps its state, unless it was given another home."""
    return [Path("/var/lib/nebula"), Path.home() / ".local/share/nebula"]


@dataclass(frozen=True)
class Target:
    """A platform. `help` says what to do if the token is missing or refused. `renew` gives a token that is valid."""

    url: str
    token: str | None
    help: str = ""
    renew: Callable[[], str] | None = None
    #: file of the only authority to trust; None: those of this host
    ca: Path | None = None


@dataclass(frozen=True)
class Given:
    """The URL and token that one source (the command line, or the environment) gives."""

    url: str | None = None
    token: str | None = None


def target(line: Given, environment: Given, home: Path | None, store: Store | None = None) -> Target:
    """The platform, the token for it, and its authority."""
    found = _chosen(line, environment, home, store)
    return replace(found, ca=found.ca or authority_of(found.url, home, store))


def authority_of(url: str, home: Path | None, store: Store | None) -> Path | None:
    """The only authority to trust for a platform: of a context with its URL, or of a platform of this machine.

    It belongs to the URL, wherever the token comes from. None: the platform has none of its own, as far as is known.
    An unsafe file of contexts says nothing.
    """
    if not url.startswith("https:"):
        return None
    try:
        contexts = store.read() if store is not None else Contexts()
    except Usage:
        contexts = Contexts()
    for name in sorted(contexts.all, key=lambda name: (name != contexts.current, name)):
        context = contexts.all[name]
        if context.ca is not None and same(url, context.url):
            return Path(context.ca)
    return next((mine.ca for mine in _local(home) if mine.ca is not None and same(url, mine.url)), None)


def _chosen(line: Given, environment: Given, home: Path | None, store: Store | None = None) -> Target:
    """The platform, and the token for it.

    The platform is the first of: the URL of the command line, the URL of the environment, with only a token in the
    environment the one of this machine, the one of a given `home`, the context in use, the one of this machine.

    A token on the command line goes to the platform that the command calls. A token in the environment is for the URL
    in the environment; the one that `nebula up` keeps in its home is for that platform, and the one of a context for
    the context's. If two URLs mean the same platform, the URL that the token belongs to is used: another user of this
    machine may listen at another address. Raises Usage if the file of contexts is needed and unsafe.
    """
    local = next(_local(home), None)
    url = line.url or environment.url
    if url is None and line.token is None and environment.token is None and (home is None or local is None):
        used = _in_use(store)
        if used is not None:
            return used
    url = url or (local.url if local else DEFAULT_URL)
    if line.token is not None:
        return Target(url, line.token)
    if environment.token is not None:
        theirs = environment.url or (local.url if local else DEFAULT_URL)
        if same(url, theirs):
            return Target(theirs, environment.token)
        return _of_context(url, store) or Target(url, None, f"NEBULA_TOKEN is for {theirs}; give --token for {url}")
    if home is None and (found := _of_context(url, store)):
        return found
    for mine in _local(home):
        if same(url, mine.url):
            return mine
    if home is not None and (found := _of_context(url, store)):
        return found
    known = f"; the one in {TOKEN_FILE} is for {local.url}" if local else ""
    advice = f"log in with `nebula login {url}`, or give the token for {url} (--token, or NEBULA_TOKEN with NEBULA_URL)"
    return Target(url, None, f"{advice}{known}")


def _in_use(store: Store | None) -> Target | None:
    """The context in use; None if there is none."""
    contexts = store.read() if store is not None else Contexts()
    if store is None or contexts.current is None:
        return None
    return _target(store, contexts.current, contexts.all[contexts.current])


def _of_context(url: str, store: Store | None) -> Target | None:
    """The context that has a token for a platform: the one in use, or else the first by name."""
    contexts = store.read() if store is not None else Contexts()
    for name in sorted(contexts.all, key=lambda name: (name != contexts.current, name)):
        context = contexts.all[name]
        if store is not None and context.token is not None and same(url, context.url):
            return _target(store, name, context)
    return None


def _target(store: Store, name: str, context: Context) -> Target:
    advice = f"log in to the context {name}: nebula login {context.url}"
    ca = Path(context.ca) if context.ca is not None else None
    if context.token is None or context.login is None:
        return Target(context.url, context.token, advice, ca=ca)

    def renew() -> str:
        from cli.client.issuer import renewed  # (loaded when it is needed, because it loads slowly)

        return renewed(store, name, store.read().all.get(name, context))

    return Target(context.url, context.token, advice, renew, ca)


def same(one: str, other: str) -> bool:
    """Whether two URLs name the same listener. False for an invalid URL (the client reports it)."""
    try:
        return platform_url(one).same(platform_url(other))
    except Usage:
        return False


def _local(home: Path | None) -> Iterator[Target]:
    """The platforms of this machine: the one in `home` if given, else those where `up` keeps its state."""
    for folder in [home] if home else default_homes():
        file = folder / URL_FILE
        try:
            token = (folder / TOKEN_FILE).read_text().strip()
            url = file.read_text().strip() if file.exists() else DEFAULT_URL
        except (OSError, UnicodeDecodeError):  # only then it is known whose token it is
            continue
        ca = folder / CA_FILE
        yield Target(url, token, ca=ca if url.startswith("https:") and ca.exists() else None)
