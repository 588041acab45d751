"""Signing in at an OIDC issuer in a browser: the authorization code flow with PKCE, and the renewal of its tokens.

The gateway is a public client: what proves that a code is ours is the verifier (RFC 7636). Every token that comes of it
is judged as any other token of the issuer.
"""

import asyncio
import hashlib
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt
from jwt.exceptions import PyJWTError

from gateway.access.attempts import Attempt, IssuerSilent, SignedIn, SignInRefused
from gateway.access.identity import Identity
from gateway.access.key_set import FRESH, PATIENCE, document
from gateway.access.oidc_login import OidcLogin
from gateway.http.problems import Problem
from runtime.issuer import within
from runtime.text.urls import plain

#: Maximum number of questions to the issuer at the same time.
MOST_ASKED = 8
#: Seconds for which the result of a renewal is kept: another tab may ask with the same cookie. Maximum number of them.
KEPT, MOST_KEPT = 60.0, 4096
#: Codes of an issuer that mean that somebody said no.
DENIED = frozenset({"access_denied", "consent_required", "login_required", "interaction_required"})

Identify = Callable[[str], Coroutine[Any, Any, Identity | None]]


@dataclass
class CodeLogin:
    """Sign-ins of one client of an issuer. `identify`: judges a token; raises Problem (401, 503)."""

    login: OidcLogin
    trust: ssl.SSLContext
    identify: Identify
    _about: dict[str, Any] = field(default_factory=dict)
    _fetched: float = float("-inf")
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_ASKED))
    _renewals: OrderedDict[str, tuple[float, asyncio.Task[SignedIn]]] = field(default_factory=OrderedDict)

    async def address(self, attempt: Attempt) -> str:
        """Where the browser goes for a sign-in. Raises SignInRefused if the issuer does not say."""
        try:
            where = await self._endpoint("authorization_endpoint")
        except IssuerSilent as error:
            raise SignInRefused("away", str(error)) from error
        query = {
            "response_type": "code",
            "client_id": self.login.client_id,
            "redirect_uri": attempt.redirect,
            "scope": " ".join(self.login.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
            **self._resource(),
        }
        if "offline_access" in self.login.scopes:  # OpenID Connect Core, 11: without it no refresh token is given
            query["prompt"] = "consent"
        return f"{where}{'&' if '?' in where else '?'}{urlencode(query)}"

    async def exchanged(self, attempt: Attempt, query: Mapping[str, str]) -> SignedIn:
        """Who has signed in, by the query with which the issuer has sent the browser back. Raises SignInRefused."""
        if query.get("iss", self.login.issuer) != self.login.issuer:  # RFC 9207
            raise SignInRefused("refused", "the answer is of another issuer")
        if said := query.get("error"):
            why = plain(query.get("error_description", "")[:200])
            raise SignInRefused("denied" if said in DENIED else "refused", f"the issuer said {said[:80]!a} {why}")
        if not query.get("code"):
            raise SignInRefused("refused", "the issuer gave no code")
        form = {
            "grant_type": "authorization_code",
            "code": query["code"],
            "redirect_uri": attempt.redirect,
            "code_verifier": attempt.verifier,
        }
        try:
            answer = await self._asked(form)
            if "openid" in self.login.scopes:
                self._same(answer.get("id_token"), attempt.nonce)
            return await self._judged(answer, None)
        except IssuerSilent as error:
            raise SignInRefused("away", str(error)) from error
        except Problem as problem:
            raise SignInRefused("away" if problem.status == 503 else "token", problem.detail) from problem

    async def renewed(self, refresh: str) -> SignedIn:
        """A new token for a refresh token. All who ask with the same one get the same, since it can be used once.

        Raises SignInRefused if the issuer gives none, IssuerSilent, Problem (503).
        """
        now, name = time.monotonic(), hashlib.sha256(refresh.encode()).hexdigest()
        while self._renewals and (
            len(self._renewals) > MOST_KEPT or next(iter(self._renewals.values()))[0] < now - KEPT
        ):
            self._renewals.popitem(last=False)
        _, task = self._renewals.get(name, (0.0, None))
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._renew(refresh))
            self._renewals[name] = now, task
            self._renewals.move_to_end(name)
        return await asyncio.shield(task)

    async def _renew(self, refresh: str) -> SignedIn:
        answer = await self._asked({"grant_type": "refresh_token", "refresh_token": refresh})
        return await self._judged(answer, refresh)

    async def revoke(self, refresh: str) -> None:
        """Tell the issuer that a refresh token is not needed any more, if it wants to know. Raises IssuerSilent."""
        about = await self._discovered()
        if isinstance(about.get("revocation_endpoint"), str):
            form = {"token": refresh, "token_type_hint": "refresh_token", "client_id": self.login.client_id}
            await self._answer(await self._endpoint("revocation_endpoint"), form)

    async def _judged(self, answer: Mapping[str, Any], refresh: str | None) -> SignedIn:
        """The token for this platform in an answer of the issuer: the access token, or else the ID token.

        Raises SignInRefused, Problem (503).
        """
        why = "the issuer gave no token"
        for name in ("access_token", "id_token"):
            token = answer.get(name)
            if not isinstance(token, str):
                continue
            try:
                identity = await self.identify(token)
            except Problem as problem:
                if problem.status != 401:
                    raise
                why = f"{name}: {problem.detail}"
                continue
            if identity is not None:
                given = answer.get("refresh_token", refresh)
                return SignedIn(token, identity, given if isinstance(given, str) and given else None)
        raise SignInRefused("token", why)

    def _same(self, token: object, nonce: str) -> None:
        """Whether an ID token is of this sign-in. It came from the issuer itself, by TLS, so its signature says nothing
        more (OpenID Connect Core, 3.1.3.7). Raises SignInRefused.
        """
        try:
            stated = jwt.decode(token if isinstance(token, str) else "", options={"verify_signature": False})
        except (PyJWTError, ValueError, RecursionError) as error:
            raise SignInRefused("token", "the issuer gave no ID token") from error
        audience = stated.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if stated.get("iss") != self.login.issuer or self.login.client_id not in audiences:
            raise SignInRefused("token", "the ID token is of another issuer, or for another client")
        if stated.get("nonce") != nonce:
            raise SignInRefused("token", "the ID token is of another sign-in (nonce)")

    def _resource(self) -> dict[str, str]:
        """An audience that is a URL is asked for as a resource (RFC 8707)."""
        audience = self.login.audience
        return {"resource": audience} if audience.startswith(("https://", "http://")) else {}

    async def _asked(self, form: dict[str, str]) -> dict[str, Any]:
        """The answer of the token endpoint. Raises SignInRefused, IssuerSilent."""
        where = await self._endpoint("token_endpoint")
        status, answer = await self._answer(where, {**form, "client_id": self.login.client_id, **self._resource()})
        if status != 200:
            said = answer.get("error_description") or answer.get("error") or status
            raise SignInRefused("refused", f"the issuer answered {plain(str(said)[:200])}")
        return answer

    async def _endpoint(self, name: str) -> str:
        """An address of the issuer. Raises IssuerSilent."""
        where = (await self._discovered()).get(name)
        if not isinstance(where, str):
            raise IssuerSilent(f"the issuer has no {name}")
        try:
            return within(where, self.login.issuer)
        except ValueError as error:
            raise IssuerSilent(f"the {name} of the issuer {error}") from error

    async def _discovered(self) -> dict[str, Any]:
        """The discovery document, kept for FRESH. Raises IssuerSilent."""
        if time.monotonic() - self._fetched > FRESH:
            issuer = self.login.issuer
            status, about = await self._answer(f"{issuer.removesuffix('/')}/.well-known/openid-configuration", None)
            if status != 200 or about.get("issuer") != issuer:
                raise IssuerSilent(f"{issuer} is not the issuer that it has to be: it answered {status}")
            self._about, self._fetched = about, time.monotonic()
        return self._about

    async def _answer(self, where: str, form: dict[str, str] | None) -> tuple[int, dict[str, Any]]:
        """The status and the object of an answer. Raises IssuerSilent."""
        try:
            async with (
                asyncio.timeout(PATIENCE),
                self._turns,
                httpx.AsyncClient(verify=self.trust, trust_env=False, follow_redirects=False) as http,
            ):
                status, answer = await document(http, where, form)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as error:
            raise IssuerSilent(plain(str(error) or type(error).__name__)) from error
        if status >= 500:
            raise IssuerSilent(f"{self.login.issuer} answered {status}")
        return status, answer
