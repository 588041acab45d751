"""`/healthz` and `/metrics` of guest-data, for the host's operator, on its only port.

Only connections from the host itself, to the address that guest-data listens on, get an answer, and for `/metrics` only
with the token in `<home>/guest-data.token`, because other users of the host connect from it, too. Guests get the same
404 as for any other path.
"""

import hmac
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from projections.guest_data.asker import Asker, NoAnswer
from runtime.files.files import put

#: Seconds for which the last check of the projections counts.
FRESH = 1.0


class Status:
    """`held`: returns the number of copies. `token`: what `/metrics` needs; without one it is not answered."""

    def __init__(self, asker: Asker, held: Callable[[], int], token: str | None) -> None:
        self._asker = asker
        self._token = token
        self._held = held
        self._checked = -FRESH
        self._trouble: str | None = None
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "nebula_guest_data_answers", "Answers to guests", ["document", "status"], registry=self.registry
        )
        self._from_copies = Counter(
            "nebula_guest_data_from_copies",
            "Answers from a sealed copy, while the projections did not answer",
            registry=self.registry,
        )
        self._refusals = Counter(
            "nebula_guest_data_refusals", "Requests that were refused, by cause", ["cause"], registry=self.registry
        )
        copies = Gauge("nebula_guest_data_copies", "Sealed copies that are kept", registry=self.registry)
        copies.set_function(held)

    def answered(self, document: str, status: int) -> None:
        self._answers.labels(document, str(status)).inc()

    def refused(self, cause: str) -> None:
        self._refusals.labels(cause).inc()

    def copied(self) -> None:
        self._from_copies.inc()

    async def answer(self, request: Request) -> Response | None:
        """The answer to the host itself; None for other paths and other clients."""
        scope = request.scope
        if scope["path"] not in ("/healthz", "/metrics") or request.method not in ("GET", "HEAD"):
            return None
        client, server = scope.get("client"), scope.get("server")
        if not client or not server or client[0] != server[0]:
            return None
        if scope["path"] == "/metrics":
            if not self._known(request.headers.get("authorization", "")):
                return None
            return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4")
        return await self._health()

    def _known(self, authorization: str) -> bool:
        return self._token is not None and hmac.compare_digest(authorization.encode(), f"Bearer {self._token}".encode())

    async def _health(self) -> Response:
        """503 while the projections do not answer: guests get copies, or 503."""
        if time.monotonic() - self._checked >= FRESH:
            try:
                await self._asker.invalid(())
                self._trouble = None
            except NoAnswer as error:
                self._trouble = str(error)
            self._checked = time.monotonic()
        health = {"status": "unavailable" if self._trouble else "ok", "copies": self._held()}
        if self._trouble:
            health["detail"] = self._trouble
        return Response(to_json(health), 503 if self._trouble else 200, media_type="application/json")


def kept_token(home: Path) -> str | None:
    """The token for `/metrics`, made if there is none; None if it can be neither read nor stored."""
    file = home / "guest-data.token"
    try:
        if not file.exists():
            put(file, secrets.token_urlsafe(24))
        return file.read_text().strip() or None
    except (OSError, ValueError):
        return None
