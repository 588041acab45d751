"""JWTs of NATS: signed with Ed25519 by a key of the operator or of an account."""

import base64
import hashlib
import json
import time
from collections.abc import Mapping

from runtime.bus.accounts.keys import Key

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Claims = dict[str, Json]

_HEAD = {"typ": "JWT", "alg": "ed25519-nkey"}


class NoJwt(ValueError):
    """A text is not a JWT."""


def signed(name: str, subject: str, nats: Claims, by: Key, *, expires: int | None = None) -> str:
    """A JWT. `subject`: the public key that it is about; `expires`: in seconds since 1970, None for never."""
    claims: Claims = {"name": name, "sub": subject, "iss": by.public, "iat": int(time.time()), "nats": nats}
    if expires is not None:
        claims["exp"] = expires
    digest = hashlib.sha256(_text(claims)).digest()
    claims["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    body = f"{_encoded(_text(_HEAD))}.{_encoded(_text(claims))}"
    return f"{body}.{_encoded(by.sign(body.encode()))}"


def claims(token: str) -> dict[str, Json]:
    """The claims of a JWT, whose signature is not checked. Raises NoJwt."""
    try:
        body = token.split(".")[1]
        found: Json = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError) as error:
        raise NoJwt("this is no JWT") from error
    if not isinstance(found, dict):
        raise NoJwt("this is no JWT")
    return found


def _text(document: Mapping[str, Json]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
