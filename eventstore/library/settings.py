"""The settings of an `eventsourcing` application on JetStream, read from its environment and checked together."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from eventsourcing.utils import Environment, strtobool

from runtime import subjects

T = TypeVar("T")

PLATFORM = (subjects.EVENTS, subjects.WANTED, subjects.REPORTS, subjects.PARKED, subjects.VAULT)


@dataclass(frozen=True, slots=True)
class Settings:
    """Each setting is read from `<APPLICATION NAME>_<NAME>`, or else from `<NAME>`."""

    #: NATS_URL: URLs of the servers, separated by commas
    servers: list[str]
    #: NATS_STREAM: the application's own stream; snapshots go to `<stream>_SNAPSHOTS`
    stream: str
    #: NATS_SUBJECT_PREFIX: the subjects of events are `<prefix>.events.<originator id>`
    prefix: str
    #: NATS_REPLICAS: number of replicas of each stream
    replicas: int
    #: NATS_CREDS: credentials file, if the server requires one
    creds: Path | None
    #: NATS_TIMEOUT: seconds until a call without an answer raises OperationalError
    timeout: float
    #: CREATE_TABLE: whether a missing stream is created; the name is that of the library's other modules
    create: bool

    @classmethod
    def read(cls, env: Environment) -> "Settings":
        """Read the settings. Raises OSError, as the library's own modules do, with all problems in one message."""
        problems: list[str] = []

        def setting(name: str, default: str, parse: Callable[[str], T], fallback: T) -> T:
            text = env.get(name) or default
            try:
                return parse(text)
            except ValueError as error:
                problems.append(f"{name}={text!r}: {error}")
                return fallback

        name = re.sub(r"[^A-Za-z0-9_-]+", "_", env.name).strip("_")
        settings = cls(
            servers=setting("NATS_URL", "nats://127.0.0.1:4222", _servers, []),
            stream=setting("NATS_STREAM", f"{name or 'stored'}_events".upper(), _stream, ""),
            prefix=setting("NATS_SUBJECT_PREFIX", (name or "stored").lower(), _prefix, ""),
            replicas=setting("NATS_REPLICAS", "1", _replicas, 1),
            creds=setting("NATS_CREDS", "", _creds, None),
            timeout=setting("NATS_TIMEOUT", "5", _timeout, 5.0),
            create=setting("CREATE_TABLE", "yes", strtobool, True),
        )
        if problems:
            raise OSError("wrong settings of the application's log: " + "; ".join(problems))
        return settings


def _servers(text: str) -> list[str]:
    urls = [url.strip() for url in text.split(",") if url.strip()]
    for url in urls:
        if not re.match(r"^(nats|tls|ws|wss)://[^\s/]+$", url):
            raise ValueError("use nats://host:port, several separated by commas")
    return urls


def _stream(text: str) -> str:
    if text in PLATFORM:
        raise ValueError("this stream belongs to the platform: use another name")
    if len(text) > 100:
        raise ValueError("use at most 100 characters")
    return subjects.token(text)


def _prefix(text: str) -> str:
    tokens = [subjects.token(part) for part in text.split(".")]
    if tokens[0] == subjects.PREFIX:
        raise ValueError(f"subjects under {subjects.PREFIX!r} belong to the platform: use another first token")
    return text


def _replicas(text: str) -> int:
    if text not in ("1", "2", "3", "4", "5"):
        raise ValueError("use 1 to 5; 3 is usual in a cluster")
    return int(text)


def _creds(text: str) -> Path | None:
    if not text:
        return None
    path = Path(text)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the file cannot be read ({error.strerror})") from error
    if b"BEGIN NATS USER JWT" not in content or b"BEGIN USER NKEY SEED" not in content:
        raise ValueError("the file has no NATS credentials (a user's JWT and seed, as `nsc generate creds` writes)")
    return path


def _timeout(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 300:
        raise ValueError("use 0.1 to 300 seconds")
    return seconds
