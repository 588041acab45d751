"""The HTTP client: every call is safe to repeat, and is repeated when the connection or the server fails.

It uses `http.client`, which loads ten times faster than its alternatives: a command runs for a moment only.
"""

import http.client
import json
import math
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from cli.client.errors import CliError, Refused, Unreachable, Usage
from cli.client.platform_url import platform_url
from runtime.tasks.backoff import Backoff

if TYPE_CHECKING:
    import ssl

#: Pauses between the tries of one call, and the number of tries: at least six seconds in all, enough for a restart of
#: the gateway.
RETRY, TRIES = Backoff(first=0.25, last=4.0, jitter=0.2), 5
#: Answers that mean "not now": the same call may be sent again.
NOT_NOW = frozenset({429, 502, 503, 504})
#: Seconds without an answer after which a call counts as lost, in addition to the wait that it requested.
PATIENCE = 30.0
#: What a header may contain: visible ASCII.
VISIBLE = re.compile(r"[!-~]+")

Document = dict[str, Any]
Query = Mapping[str, object]


def path(*parts: str) -> str:
    """A path below /v1; each part is one segment. Raises Usage for a part that cannot be one: no id is like that."""
    for part in parts:
        if not part or "/" in part:
            raise Usage(f"{part!r} cannot be an id or a name: it is empty, or has a slash")
    return "/v1/" + "/".join(quote(encoded(part), safe="") for part in parts)


def encoded(text: str) -> bytes:
    """The text in UTF-8. Raises Usage for an argument that was in another encoding."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Usage("an argument, or a variable of the environment, is not text in UTF-8") from None


class Client:
    """Calls one platform. `note` gets a line whenever a call has to be tried again.

    `help` says what to do when the platform refuses the token, or there is none. `renew` gives the token for each call.
    `trust`: the TLS context; by default the authorities of this host are trusted.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        note: Callable[[str], None],
        help: str = "",
        renew: Callable[[], str] | None = None,
        trust: "ssl.SSLContext | None" = None,
    ) -> None:
        at = platform_url(url)
        if token and not VISIBLE.fullmatch(token):
            raise Usage("a token has to be visible ASCII characters, without spaces")
        self.url = at.url
        self.address = (at.host.strip("[]"), at.port)
        self._secure = at.scheme == "https"
        self._base = at.base
        self._token = token
        self._note = note
        self._help = help
        self._renew = renew
        self._trusted = trust

    def get(self, target: str, query: Query | None = None, *, wait: float = 0) -> Document:
        """Read. `wait`: seconds for which the server may hold back the answer.

        Raises Refused (4xx) and Unreachable, as all calls do.
        """
        return self._call("GET", target, query, wait=wait)

    def poll(self, target: str, query: Query | None = None, *, wait: float = 0, patience: float = math.inf) -> Document:
        """Read, and try again for `patience` seconds while the platform is away or fails.

        Raises Refused as `get` does, and Unreachable when these seconds are over.
        """
        until = time.monotonic() + patience
        while True:
            try:
                return self.get(target, query, wait=wait)
            except (Refused, Unreachable) as error:
                fails = isinstance(error, Unreachable) or error.status >= 500
                if not fails or time.monotonic() + RETRY.last >= until:
                    raise
                self._note(f"{error}; still waiting")
                time.sleep(RETRY.after(TRIES))

    def raw(self, target: str, query: Query | None = None, *, wait: float = 0) -> tuple[bytes, Mapping[str, str]]:
        """Read an answer that is not JSON: its body, and its headers with names in lower case."""
        return self._tried("GET", target, query, wait=wait)

    def socket(self, target: str, query: Query | None = None) -> tuple[str, dict[str, str]]:
        """The address of the WebSocket at `target`, and the headers that open it."""
        return "ws" + self.url.removeprefix("http") + self._whole(target, query), self._authorization()

    def pages(self, target: str, query: Query | None = None) -> Iterator[Document]:
        """All items of a list, page after page."""
        token = None
        while True:
            page = self.get(target, {**(query or {}), "page_token": token})
            yield from page["items"]
            token = page.get("next_page_token")
            if token is None:
                return

    def send(self, method: str, target: str, body: Document | None = None, *, key: str = "") -> Document:
        """Send a command. It happens once, however often it has to be sent, because of `key` (random when empty)."""
        if key and not VISIBLE.fullmatch(key):
            raise Usage("a key has to be visible ASCII characters, without spaces")
        return self._call(method, target, body=body, key=key or str(uuid.uuid4()))

    def events(self, target: str, query: Query, last: str | None) -> Iterator[tuple[str, str]]:
        """Server-Sent Events after the item `last`, as (id, data). Raises Unreachable when the stream ends.

        The data is empty if a frame only says where to resume.
        """
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last is not None else {})}
        connection = self._connect(PATIENCE)
        try:
            response = self._request(connection, "GET", target, query, None, headers)
            if response.status != 200:
                raise self._problem(response, response.read())
            fields: dict[str, str] = {}
            for raw in response:
                line = raw.decode(errors="replace").rstrip("\r\n")
                if line:
                    name, _, value = line.partition(":")
                    value = value.removeprefix(" ")
                    fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
                else:
                    if "data" in fields or "id" in fields:
                        yield fields.get("id", ""), fields.get("data", "")
                    fields = {}
            raise Unreachable(f"{self.url} ended the feed")
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(self._lost(error)) from error
        finally:
            connection.close()

    def _call(
        self,
        method: str,
        target: str,
        query: Query | None = None,
        *,
        body: Document | None = None,
        key: str = "",
        wait: float = 0,
    ) -> Document:
        data, _ = self._tried(method, target, query, body=body, key=key, wait=wait)
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise CliError(f"what answers at {self.url} is not a Nebula platform")
        return document

    def _tried(
        self,
        method: str,
        target: str,
        query: Query | None = None,
        *,
        body: Document | None = None,
        key: str = "",
        wait: float = 0,
    ) -> tuple[bytes, Mapping[str, str]]:
        for number in range(1, TRIES + 1):
            try:
                return self._once(method, target, query, body, key, wait)
            except Unreachable as error:
                pause_for = max(RETRY.after(number), min(error.retry_after, 10.0))
                same = " with the same key" if key else ""
                self._note(f"{error}; trying again{same} in {pause_for:.1f} s ({number} of {TRIES})")
                time.sleep(pause_for)
        return self._once(method, target, query, body, key, wait)

    def _once(
        self, method: str, target: str, query: Query | None, body: Document | None, key: str, wait: float
    ) -> tuple[bytes, Mapping[str, str]]:
        headers = {"Accept": "application/json", **({"Idempotency-Key": key} if key else {})}
        content = None if body is None else encoded(json.dumps(body, ensure_ascii=False))
        if content is not None:
            headers["Content-Type"] = "application/json"
        connection = self._connect(PATIENCE + wait)
        try:
            response = self._request(connection, method, target, query, content, headers)
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(self._lost(error)) from error
        finally:
            connection.close()
        if not 200 <= response.status < 300:
            raise self._problem(response, data)
        return data, {name.lower(): value for name, value in response.getheaders()}

    @property
    def trust(self) -> "ssl.SSLContext | None":
        """The TLS context; None if the platform speaks plain HTTP."""
        if self._secure and self._trusted is None:
            from runtime.trust import trusted  # (loaded when it is needed, because it loads slowly)

            self._trusted = trusted()
        return self._trusted if self._secure else None

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(*self.address, timeout=timeout)
        return http.client.HTTPSConnection(*self.address, timeout=timeout, context=self.trust)

    def _request(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        query: Query | None,
        content: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        whole = self._base + self._whole(target, query)
        connection.request(method, whole, body=content, headers={**headers, **self._authorization()})
        return connection.getresponse()

    def _whole(self, target: str, query: Query | None) -> str:
        given = {name: encoded(str(value)) for name, value in (query or {}).items() if value is not None}
        return target + ("?" + urlencode(given) if given else "")

    def _authorization(self) -> dict[str, str]:
        token = self._renew() if self._renew is not None else self._token
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _problem(self, response: http.client.HTTPResponse, data: bytes) -> CliError:
        problem = problem_of(self.url, response.status, data)
        if response.status == 401 and self._help:
            problem["detail"] = f"{problem['detail']}; {self._help}"
        if response.status not in NOT_NOW:
            return Refused(problem)
        after = response.getheader("Retry-After") or ""
        return Unreachable(str(Refused(problem)), float(after) if re.fullmatch("[0-9]{1,5}", after) else 0)

    def _lost(self, error: Exception) -> str:
        reason = getattr(error, "strerror", None) or str(error) or "the connection was lost"
        return f"{self.url} does not answer: {reason}"


def problem_of(url: str, status: int, data: bytes) -> Document:
    """The problem in an answer that is not a success; a general one if the answer contains none."""
    problem: Document = {"status": status, "detail": f"{url} answered {status}"}
    if 300 <= status < 400:  # a token is not sent to the target of a redirect
        problem["detail"] += ", which leads elsewhere: give the platform's own URL"
        return problem
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return problem
    return {**problem, **body, "status": status} if isinstance(body, dict) else problem
