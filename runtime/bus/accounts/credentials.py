"""Files with a credential: the JWT of a user and its seed, as the tool `nsc` writes them."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from runtime.bus.accounts.jwt import claims
from runtime.bus.accounts.keys import Key, WrongKey
from runtime.files.files import put

_BLOCK = re.compile(r"-+BEGIN ([A-Z ]+)-+\s+(\S+)\s+-+END [A-Z ]+-+")
_TEXT = """\
-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
The seed below is a secret: whoever has it is this user.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------

*************************************************************
"""


class BadCredentials(ValueError):
    """A file has no credential. The text does not repeat its content."""


@dataclass(frozen=True)
class Credential:
    """What a credential says of itself; the server judges it. `expires`: in seconds since 1970, None for never.

    `issuer`: the public key of its account. `answering`: it may answer only what its own connection has heard.
    `guests`: the node of whose guests it speaks; None for any.
    """

    name: str
    public: str
    account: str
    inbox: str | None
    expires: float | None
    issuer: str | None = None
    answering: bool = False
    guests: str | None = None

    @property
    def imports(self) -> bool:
        """Whether the streams are in another account, which calls JetStream by another name."""
        return self.account not in ("", "control")

    @property
    def creates_consumers(self) -> bool:
        return self.account in ("", "control", "handlers")


def text(jwt: str, seed: bytes) -> str:
    return _TEXT.format(jwt=jwt, seed=seed.decode())


def write(file: Path, jwt: str, key: Key) -> None:
    """Write the file, readable for its owner only. Raises OSError."""
    put(file, text(jwt, key.seed))


def read(file: Path) -> Credential:
    """What the credential in a file says. Raises OSError, BadCredentials."""
    jwt, _ = parts(file)
    try:
        found = claims(jwt)
        nats = found["nats"]
        assert isinstance(nats, dict)
        listed = nats.get("tags")
        tags = [str(tag) for tag in listed] if isinstance(listed, list) else []
        named = dict(tag.split(":", 1) for tag in tags if ":" in tag)
        expires = found.get("exp")
        return Credential(
            name=str(found.get("name", "")),
            public=str(found["sub"]),
            account=named.get("account", ""),
            inbox=f"_INBOX.{named['inbox']}" if "inbox" in named else None,
            expires=float(expires) if isinstance(expires, int | float) else None,
            issuer=str(nats["issuer_account"]) if "issuer_account" in nats else None,
            answering="resp" in nats,
            guests=named.get("guests"),
        )
    except (KeyError, ValueError, AssertionError) as error:
        raise BadCredentials(f"{file} has no valid JWT of a user of NATS") from error


def parts(file: Path) -> tuple[str, Key]:
    """The JWT and the key in a file. Raises OSError, BadCredentials."""
    try:
        blocks = dict(_BLOCK.findall(file.read_text()))
        return blocks["NATS USER JWT"], Key(blocks["USER NKEY SEED"].encode())
    except (KeyError, UnicodeDecodeError, WrongKey) as error:
        raise BadCredentials(f"{file} has no credential of NATS: the JWT of a user, and its seed") from error


def expired(credential: Credential) -> bool:
    return credential.expires is not None and credential.expires <= time.time()
