"""How a host joins: it checks the platform's authority before it sends the token, and sends it to nobody else."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from cli.client.client import Client, path
from cli.client.errors import CliError, Refused, Usage
from cli.client.platform_url import HERE, platform_url
from cli.client.session import note
from runtime.subjects import SLUG
from runtime.tls.authority import fingerprint, is_fingerprint
from runtime.tls.contexts import BadCertificate, pinned, unverified

if TYPE_CHECKING:
    import ssl

    from node_daemon.membership.credentials import Held

_TOKEN = re.compile(f"nbj_({SLUG})_[A-Za-z0-9_-]{{43}}")
#: Hosts in a URL of the bus that stand for the host at which the gateway was reached.
ANYWHERE = ("0.0.0.0", "::")  # noqa: S104  (nothing is bound here)


def join(home: Path, url: str, token: str, expected: str | None) -> "Held":
    """Join the platform at `url`, and store the credential in `home`. Raises CliError, OSError."""
    if _TOKEN.fullmatch(token) is None:
        raise Usage("this is no join token: they begin with nbj_ and the name of the node (nebula node token)")
    return exchange(home, Client(url, None, note, trust=trusted(url, expected)), token)


def exchange(home: Path, api: Client, token: str, *, own: bool = False) -> "Held":
    """Exchange a join token for a credential, which is stored in `home`. `own`: it is the home of that platform.

    Raises CliError, OSError.
    """
    from domain.contract.joining import Joined
    from node_daemon.membership.credentials import Files, proven_keys

    found, url = _TOKEN.fullmatch(token), api.url
    assert found is not None
    files = Files(home)
    digest = hashlib.sha256(token.encode()).hexdigest()
    made = files.pending(digest)
    guest = "" if own else made.guest  # guest-data of `nebula up` has a credential of its role
    body = {"node": found[1], "token": token, **proven_keys(found[1], digest, made.seed, guest)}
    answer = api.send("POST", path("join"), body)
    try:
        joined = Joined.model_validate(answer)
    except ValidationError:
        raise CliError(f"what answers at {url} is not a Nebula platform of this version") from None
    try:
        at = reached(joined.nats_url, platform_url(url).host)
        return files.store(joined, made.seed, url, at, guest=guest, own=own)
    except ValueError as error:
        raise CliError(f"the node key in the answer of {url} cannot be used: {error}") from error


def trusted(url: str, expected: str | None) -> "ssl.SSLContext | None":
    """The TLS context for the platform: with the authority of this fingerprint, or (None) as for any web site.

    Raises Usage where the token would be sent in clear text; CliError if the authority has another fingerprint.
    """
    at = platform_url(url)
    if at.scheme == "http":
        if expected is not None:
            raise Usage(f"--ca-fingerprint needs a URL with https://, not {url}")
        if at.host not in HERE:
            raise Usage(f"the token would be sent to {url} in clear text: use a URL with https://")
        return None
    if expected is None:
        return None
    if not is_fingerprint(expected):
        raise Usage("a fingerprint is sha256: and 64 digits or letters a to f")
    try:
        pem, _ = Client(url, None, note, trust=unverified()).raw(path("ca"))
        actual = fingerprint(pem)
    except (BadCertificate, Refused) as error:
        raise CliError(f"{url} shows no authority; the token was not sent") from error
    if actual != expected:
        raise CliError(
            f"the authority of {url} has the fingerprint {actual}, not {expected}: somebody may be in between, or it "
            "is another platform; the token was not sent"
        )
    return pinned(first(pem))


def first(pem: bytes) -> bytes:
    """The first certificate, which is the one that was compared."""
    end = b"-----END CERTIFICATE-----\n"
    return pem[pem.index(b"-----BEGIN CERTIFICATE-----") : pem.index(end) + len(end)]


def reached(urls: str, host: str) -> str:
    """The URLs of the bus, with the gateway's host in place of addresses that stand for all."""

    def one(url: str) -> str:
        parts = urlsplit(url)
        return f"{parts.scheme}://{host}:{parts.port or 4222}" if parts.hostname in ANYWHERE else url

    return ",".join(one(url.strip()) for url in urls.split(","))
