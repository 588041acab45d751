"""The home of a platform on this machine: its lock, its first token, its ports."""

import hashlib
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.client.credentials import CA_FILE, TOKEN_FILE, URL_FILE
from runtime import token_text
from runtime.files.files import put
from runtime.files.lock import Held, lock
from runtime.files.private import passable
from runtime.local.child import ServerError, free_port, remembered_port, stop_leftover

NATS_PORT = 4222
#: Files in a home that only their owner may read. Earlier versions made some of them readable to all.
FOLDERS = ("log", "nats", "run", "imports", "image-store")
FILES = ("*.token", "tokens", "*.key", "*.pub", "*.password", "*.pid", "*.port", "*.url", "*.lock")


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Be the only `nebula up` on `home`. The kernel releases the lock when the process ends, also after a crash.

    Raises ServerError, with the number of the process that holds the lock.
    """
    passable(home)
    close(home)
    try:
        file = lock(home / "up.lock")
    except Held as error:
        raise ServerError(
            f"a platform already runs on {home} (process {error.holder}): stop it first, or set another NEBULA_HOME"
        ) from None
    with file:
        yield


def close(home: Path) -> None:
    """Remove other users' rights to the files that only their owner may read. Raises OSError."""
    for path in (found for pattern in (*FOLDERS, *FILES) for found in home.glob(pattern)):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            path.chmod(mode & 0o700)


def tokens_file(home: Path) -> Path:
    """The gateway's list of tokens; at first use with one, `admin`, whose clear text is in `home/admin.token`.

    It works without the log: the way in when all else fails.
    """
    listed = home / "tokens"
    if not listed.exists():
        token = token_text.random()
        put(home / TOKEN_FILE, f"{token}\n")
        put(listed, f"admin {hashlib.sha256(token.encode()).hexdigest()}\n")
    return listed


def api_url_file(home: Path) -> Path:
    """The URL of this platform's API: `admin.token` is for that URL only."""
    return home / URL_FILE


def nats_port_file(home: Path) -> Path:
    """The port of the event log's server on this host, which it gets again if it is free."""
    return home / "nats.port"


def bus_url_file(home: Path) -> Path:
    """The URL of the event log's server that `nebula up` has started last."""
    return home / "nats.url"


def on_bus(home: Path, credential: str) -> dict[str, object]:
    """The settings with which the bus of a platform on this home is reached; empty if there is none.

    `credential`: the name of its file.
    """
    file, port, creds = bus_url_file(home), remembered_port(nats_port_file(home)), home / "bus" / f"{credential}.creds"
    if port is None:
        return {}
    url = file.read_text().strip() if file.exists() else f"nats://127.0.0.1:{port}"
    found: dict[str, object] = {"nats_url": url}
    if url.startswith("tls://"):
        found["nats_ca"] = home / CA_FILE
    return found | ({"nats_creds": creds} if creds.exists() else {})


def seed_url_file(home: Path) -> Path:
    """The address at which this host's guests last reached the data source."""
    return home / "seed.url"


def nats_port(home: Path, address: str = "127.0.0.1") -> int:
    """The port of this platform's event log: the last one if it is free, else 4222, else any free port."""
    file = nats_port_file(home)
    preferred = [port for port in (remembered_port(file), NATS_PORT) if port is not None]
    port = next((port for port in preferred if is_free(address, port)), None) or free_port()
    put(file, str(port))
    return port


def is_free(host: str, port: int) -> bool:
    """Whether this port is free now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def pid_file(home: Path, role: str) -> Path:
    return home / "run" / f"{role}.pid"


async def stop_leftovers(home: Path, roles: tuple[str, ...]) -> None:
    """End the processes that a killed `nebula up` left on `home`: roles first, then the event log's server."""
    for role in roles:
        file = pid_file(home, role)
        await stop_leftover(file, str(file))
    nats = home / "nats.pid"
    await stop_leftover(nats, str(nats))
