"""The public keys of an OIDC issuer, fetched when they are needed and kept while the issuer is away.

One fetch runs at a time, whoever waits for it. An unknown key id causes a fetch at most every COOLDOWN seconds, so a
flood of invented ids does not reach the issuer.
"""

import asyncio
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from runtime import logs
from runtime.issuer import within
from runtime.text.urls import plain

log = logs.get(__name__)

#: Seconds after which keys are fetched again in the background.
FRESH = 600.0
#: Seconds for which keys are used while the issuer is away.
KEPT = 24 * 3600.0
#: Seconds between two fetches that a call may cause.
COOLDOWN = 10.0
#: Seconds for one fetch of both documents.
PATIENCE = 10.0
#: Maximum bytes of a document, and maximum number of keys.
MOST_BYTES, MOST_KEYS = 256 * 1024, 64
#: The bits of RSA keys that are used.
LEAST_RSA, MOST_RSA = 2048, 8192

#: The only algorithms: the type of key, and its curve, for each.
ALGORITHMS = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}


class IssuerAway(Exception):
    """The issuer does not answer as it has to, and no keys of it are known."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of the issuer, and its numbers as the issuer wrote them. `id` is None if the issuer gave it none."""

    id: str | None
    algorithm: str
    numbers: tuple[tuple[str, str], ...]
    key: PyJWK = field(compare=False)


@dataclass
class KeySet:
    """The keys of one issuer."""

    issuer: str
    trust: ssl.SSLContext
    _keys: tuple[PublicKey, ...] | None = None
    _fetched: float = 0.0
    _tried: float = field(default=float("-inf"))
    _fetching: asyncio.Task[None] | None = None
    _error: str = "it was not asked yet"

    async def keys(self, id: str | None, algorithm: str) -> list[PublicKey]:
        """The keys that may have signed a token; empty if the issuer has none. Raises IssuerAway."""
        self._refresh()
        found = self._matching(id, algorithm)
        if not found:
            await self._fetch()
            found = self._matching(id, algorithm)
        if self._keys is None:
            raise IssuerAway(self._error)
        return found

    def holds(self, key: PublicKey) -> bool:
        """Whether a key is still one of the issuer's. Raises IssuerAway if that is not known any more."""
        self._refresh()
        if self._keys is None:
            self._begin()
            raise IssuerAway(self._error)
        return key in self._keys

    def _refresh(self) -> None:
        """Fetch old keys again in the background, and forget those that are too old."""
        age = time.monotonic() - self._fetched
        if self._keys is not None and age > FRESH:
            if age > KEPT:
                self._keys = None
            self._begin()

    def _matching(self, id: str | None, algorithm: str) -> list[PublicKey]:
        fitting = [key for key in self._keys or () if key.algorithm == algorithm]
        if id is None:  # then only an issuer with one key can be meant
            return fitting if len(fitting) == 1 else []
        return [key for key in fitting if key.id == id]

    async def _fetch(self) -> None:
        """Wait for a fetch, unless there was one a moment ago."""
        task = self._begin()
        if task is not None:
            await asyncio.shield(task)

    def _begin(self) -> asyncio.Task[None] | None:
        """The fetch that runs, or a new one; None if the last one was a moment ago."""
        if self._fetching is None and time.monotonic() - self._tried >= COOLDOWN:
            self._tried = time.monotonic()
            self._fetching = asyncio.create_task(self._run())
        return self._fetching

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self._asked()
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as error:
            self._error = plain(str(error) or type(error).__name__)
            log.warning("keys of the issuer not fetched", issuer=self.issuer, error=self._error)
            return
        finally:
            self._fetching = None
        self._fetched = time.monotonic()
        if self._keys != found:
            log.info("keys of the issuer fetched", issuer=self.issuer, keys=len(found))
        self._keys = found

    async def _asked(self) -> tuple[PublicKey, ...]:
        """Discovery, then the key set. Raises ValueError, and the errors of httpx."""
        async with httpx.AsyncClient(verify=self.trust, trust_env=False, follow_redirects=False) as http:
            about = await _document(http, f"{self.issuer.removesuffix('/')}/.well-known/openid-configuration")
            if about.get("issuer") != self.issuer:
                raise ValueError(f"the discovery document is of the issuer {about.get('issuer')!a}")
            where = about.get("jwks_uri")
            if not isinstance(where, str):
                raise ValueError("the discovery document has no jwks_uri")
            listed = (await _document(http, within(where, self.issuer))).get("keys")
        if not isinstance(listed, list) or len(listed) > MOST_KEYS:
            raise ValueError(f"the key set has to list at most {MOST_KEYS} keys")
        return tuple(key for each in listed if (key := _usable(each)) is not None)


async def document(http: httpx.AsyncClient, url: str, form: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """The status and the JSON object of an answer, to a GET, or to a POST of a form.

    Raises ValueError, and the errors of httpx.
    """
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with http.stream("GET" if form is None else "POST", url, headers=headers, data=form) as answer:
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > MOST_BYTES:
                raise ValueError(f"{url} answered more than {MOST_BYTES} bytes")
    try:
        found = json.loads(bytes(body or b"{}"))
    except ValueError as error:
        raise ValueError(f"{url} answered {answer.status_code} without an object: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{url} did not answer an object")
    return answer.status_code, found


async def _document(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """A JSON object that has to be there. Raises ValueError, and the errors of httpx."""
    status, found = await document(http, url)
    if status != 200:
        raise ValueError(f"{url} answered {status}")
    return found


def _usable(given: object) -> PublicKey | None:
    """A key for signatures with one of our algorithms; None for any other."""
    if not isinstance(given, dict) or given.get("use", "sig") != "sig":
        return None
    for algorithm, (kind, curve) in ALGORITHMS.items():
        named = {"Ed25519": "EdDSA"}.get(str(given.get("alg")), given.get("alg", algorithm))
        if (given.get("kty"), given.get("crv")) != (kind, curve) or named != algorithm:
            continue
        public = {name: str(value) for name, value in given.items() if name in ("kty", "crv", "n", "e", "x", "y")}
        try:
            key = PyJWK(public, algorithm)
        except (PyJWTError, ValueError, TypeError):
            return None
        if kind == "RSA" and not LEAST_RSA <= key.key.key_size <= MOST_RSA:
            return None
        id = given.get("kid")
        return PublicKey(id if isinstance(id, str) else None, algorithm, tuple(sorted(public.items())), key)
    return None
