"""How a process proves to the bus who it is: a file with a credential, or a user and a password."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nats.errors import AuthorizationError
from nats.protocol.parser import AUTHORIZATION_VIOLATION

from runtime.bus.accounts import credentials
from runtime.bus.accounts.credentials import BadCredentials
from runtime.bus.accounts.table import API, IMPORTED_API
from runtime.settings import Common
from runtime.tasks.patience import CannotRun, one_line
from runtime.tls.contexts import BadCertificate, pinned
from runtime.trust import trusted

#: The server's words when a credential ends while it is connected.
EXPIRED = "authentication expired"
ENDED = (EXPIRED, "authentication revoked", "account authentication")


@dataclass(frozen=True)
class Login:
    """`options`: for nats-py's `connect`. `api`: the name of the JetStream API. `imports`: streams are in another
    account, where this connection cannot create consumers (handlers can). `accounts`: whether the platform has made
    the credential.
    """

    options: dict[str, Any]
    api: str = API
    imports: bool = False
    accounts: bool = False


def login(settings: Common) -> Login:
    """How to log in. The file is read now, and by nats-py again at each connection. Raises CannotRun."""
    file = settings.nats_creds
    if file is None:
        return Login({"user": settings.nats_user, "password": settings.nats_password})
    found = told(file)
    options: dict[str, Any] = {"user_credentials": str(file)}
    if found.inbox is not None:
        options["inbox_prefix"] = found.inbox
    return Login(options, IMPORTED_API if found.imports else API, not found.creates_consumers, bool(found.account))


def told(file: Path) -> credentials.Credential:
    """What a credential says of itself. Raises CannotRun."""
    try:
        return credentials.read(file)
    except OSError as error:
        raise CannotRun(f"cannot read NEBULA_NATS_CREDS: {error.strerror}: {file}") from error
    except BadCredentials as error:
        raise CannotRun(f"NEBULA_NATS_CREDS: {error}") from error


def advice(settings: Common) -> str:
    """What to check if a server refuses us."""
    file = settings.nats_creds
    if file is None:
        if settings.nats_user is None:
            return "; it needs a credential: set NEBULA_NATS_CREDS, or NEBULA_NATS_USER and NEBULA_NATS_PASSWORD"
        return "; check NEBULA_NATS_USER and NEBULA_NATS_PASSWORD"
    try:
        found = credentials.read(file)
    except (OSError, BadCredentials):
        return f"; check NEBULA_NATS_CREDS: {file}"
    state = "has expired" if credentials.expired(found) else "is revoked, or of another platform"
    return f"; the credential of {found.name} in {file} {state}"


def refuses(error: Exception | None) -> bool:
    """Whether the server refused our user or password. nats-py passes on only the text of the server's error."""
    text = str(error).lower()
    return isinstance(error, AuthorizationError) or any(each in text for each in (AUTHORIZATION_VIOLATION, *ENDED))


def refusal(what: str, error: Exception | None, advice: str) -> CannotRun:
    """`advice`: what to check if the server refuses our user."""
    reason = one_line(error) if error is not None else "it gives no reason"
    return CannotRun(f"{what} refuses the connection: {reason}{advice if refuses(error) else ''}")


def tls_of(settings: Common) -> ssl.SSLContext | None:
    """The TLS context for the servers; None if the connection needs none. Raises CannotRun."""
    if settings.nats_ca is not None:
        try:
            return pinned(settings.nats_ca)
        except BadCertificate as error:
            raise CannotRun(f"NEBULA_NATS_CA: {error}") from error
    return trusted() if any(url.startswith("tls://") for url in settings.nats_urls) else None
