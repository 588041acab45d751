"""The cloud-init data source: serves the data of a guest at boot, at a URL that only this boot of the guest knows.

It serves `/<secret>/meta-data`, `user-data`, `vendor-data` and `network-config`, which stock images request (NoCloud
over HTTP), and accepts `POST /<secret>/phone-home` when cloud-init has finished, at each boot.

- Only the VM itself gets its data: the client's address has to be used by the VM's network interface (`admission.py`).
- A client without this right learns nothing: every refusal of a path, a secret or an address is the same 404.
- User-data is empty once cloud-init has finished in the present boot. A 404 would be worse: if the platform missed a
  reboot of the guest, cloud-init would take the guest for a new machine and replace its SSH host keys.
- Each request is forwarded to the projections. A sealed copy is served only while they do not answer. Without a copy,
  the answer is 503, and cloud-init tries again. If the projections no longer know a secret, its copy is removed.
- A guest waits for an answer without a limit, so each answer takes a few seconds at most.
"""

import asyncio
import ipaddress
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from domain.contract.guest_data import GuestSeed
from projections.guest_data import neighbours, phone_home
from projections.guest_data.admission import Called, plain, stranger
from projections.guest_data.asker import Asker, CallRefused, NoAnswer, UnknownSecret, Withheld
from projections.guest_data.copies import Copies, name_of
from projections.guest_data.rate import Rate
from projections.guest_data.status import Status
from runtime import logs
from runtime.bus.refusal_records import RefusalRecords
from runtime.bus.refused_calls import RefusedGuest

log = logs.get(__name__)

#: Seconds for a guest to send its body; and for the answer of the projections, including the wait for a turn.
BODY_SECONDS = 10.0
ANSWER_SECONDS = 4.5

_PATH = re.compile(r"/([A-Za-z0-9_-]{16,128})/([a-z-]{1,20})")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
DOCUMENTS = ("meta-data", "user-data", "vendor-data", "network-config")
#: Headers that proxies add: a proxy between a guest and its data is refused.
FORWARDED = ("x-forwarded-for", "x-forwarded-host", "forwarded", "x-real-ip", "via")


class Refused(Exception):
    """The answer is a refusal. `reason` is for the log, `cause` for the count; the guest gets only the status."""

    def __init__(self, status: int, reason: str, cause: str = "request") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.cause = cause


@dataclass(frozen=True)
class Source:
    """The data source as an ASGI application."""

    asker: Asker
    copies: Copies
    status: Status
    #: limits per secret: of documents (a boot requests four), and of calls (a boot makes one, with a few tries)
    asks: Rate = field(default_factory=lambda: Rate(60, 1.0))
    calls: Rate = field(default_factory=lambda: Rate(10, 0.1))
    #: limit per address: of unknown secrets
    guesses: Rate = field(default_factory=lambda: Rate(60, 1.0))
    #: the MAC addresses that use a client's address, on the network of the address that it has connected to
    neighbours: Callable[[str, str], frozenset[str]] = neighbours.of
    #: the calls that guests have made, one for each boot
    called: Called = field(default_factory=Called)
    #: what was refused, for auditors
    records: RefusalRecords[RefusedGuest] | None = None
    #: questions about one secret are sent one after the other, so that an old answer never replaces a newer one
    turns: "WeakValueDictionary[str, asyncio.Lock]" = field(default_factory=WeakValueDictionary)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        own = await self.status.answer(request)
        if own is not None:
            await own(scope, receive, send)
            return
        started = time.perf_counter()
        fields: dict[str, Any] = {"client": request.client.host if request.client else None}
        try:
            response = await answer(self, request, fields)
        except Refused as refused:
            response = refusal(refused.status)
            fields["reason"] = refused.reason
            self.status.refused(refused.cause)
            self.record(refused, request, fields)
        except (NoAnswer, TimeoutError) as error:
            response = refusal(503)
            fields["reason"] = str(error) or "the projections took too long"
        except ClientDisconnect:
            return
        except Exception:
            log.exception("data source failed", **fields)
            response = refusal(503)
        milliseconds = round((time.perf_counter() - started) * 1e3, 1)
        log.info("seed requested", method=request.method, status=response.status_code, ms=milliseconds, **fields)
        self.status.answered(fields.get("document", "none"), response.status_code)
        await response(scope, receive, send)

    def record(self, refused: Refused, request: Request, fields: dict[str, Any]) -> None:
        """Record a refusal for auditors: the VM whose secret was used, and never the secret."""
        if self.records is not None:
            vm, client = fields.get("vm"), fields.get("client") or ""
            entry = RefusedGuest(
                refused.status,
                f"guest_{refused.cause}",
                plain(client),
                f"vm:{vm}" if vm else None,
                request.method,
                str(fields.get("document", "")),
            )
            self.records.note(entry)


def refusal(status: int) -> Response:
    """An answer that contains only its status."""
    text = {
        400: "bad request\n",
        409: "repeated\n",
        413: "too large\n",
        429: "too many requests\n",
        503: "try again\n",
    }.get(status, "not found\n")
    headers = {"Retry-After": "1" if status == 503 else "10"} if status in (429, 503) else None
    return Response(text, status, headers, "text/plain")


async def answer(source: Source, request: Request, fields: dict[str, Any]) -> Response:
    """The answer to one request. Values for the log are added to `fields`. Raises Refused, NoAnswer, TimeoutError."""
    path = _PATH.fullmatch(request.scope["path"])
    if path is None or any(name in request.headers for name in FORWARDED):
        raise Refused(404, "no such path, or forwarded")
    secret, name = path.groups()
    posted = request.method == "POST" and name == "phone-home"
    if not posted and not (request.method in ("GET", "HEAD") and name in DOCUMENTS):
        raise Refused(404, "no such path")
    fields["document"] = name
    if not (source.calls if posted else source.asks).allows(name_of(secret), time.monotonic()):
        raise Refused(429, "too many requests with this secret", "rate")
    async with asyncio.timeout(ANSWER_SECONDS):
        seed = await find(source, secret, fields)
    fields.update(vm=seed.vm, project=seed.project)
    client, server = (pair[0] if pair else None for pair in (request.scope.get("client"), request.scope.get("server")))
    if (problem := stranger(seed, client, server, source.neighbours, posted=posted)) is not None:
        source.guesses.allows(network_of(client), time.monotonic())
        raise Refused(404, problem, "address")
    if posted:
        await receive_call(source, request, secret)
        return Response("ok\n", media_type="text/plain")
    if name == "user-data" and seed.finished and "copy" not in fields:
        fields["reason"] = "user-data is requested after cloud-init has finished"
        source.status.refused("finished")
        seed = seed.model_copy(update={"user_data": b""})
    return Response(document(seed, name, base(request, secret)), media_type="text/plain")


async def find(source: Source, secret: str, fields: dict[str, Any]) -> GuestSeed:
    """The data of the guest with this secret, from the projections or from a copy. Raises Refused, NoAnswer."""
    name, who = name_of(secret), network_of(fields["client"])
    if not source.copies.holds(name) and not source.guesses.is_left(who, time.monotonic()):
        raise Refused(429, "too many unknown secrets from this address", "rate")
    async with source.turns.setdefault(name, asyncio.Lock()):
        try:
            seed = await source.asker.seed(secret)
        except UnknownSecret as error:
            source.copies.remove([name])
            source.guesses.allows(who, time.monotonic())
            raise Refused(404, str(error), "secret") from error
        except Withheld as error:
            raise Refused(404, str(error), "off") from error
        except NoAnswer as error:
            seed = copied(source.copies, secret, error)
            fields["copy"] = str(error)
            source.status.copied()
        else:
            source.copies.put(secret, to_json(seed.model_dump(mode="json")))
    return seed


def copied(copies: Copies, secret: str, why: NoAnswer) -> GuestSeed:
    """The last answer for this guest, from its copy. Raises NoAnswer if there is no copy."""
    found = copies.get(secret)
    if found is None:
        raise why
    try:
        return GuestSeed.model_validate_json(found)
    except ValidationError:  # written by another version
        raise why from None


def network_of(client: str | None) -> str:
    """The address to which limits apply: for IPv6 the /64 network, since a host has all addresses of one."""
    try:
        address = ipaddress.ip_address(client or "")
    except ValueError:
        return client or ""
    return client or "" if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


def base(request: Request, secret: str) -> str:
    """The URL of this seed, with the host name that the guest used."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise Refused(400, "bad Host")
    return f"http://{host}/{secret}/"


def document(seed: GuestSeed, name: str, url: str) -> bytes:
    """One document of a seed. A document without content is empty, not missing: a 404 costs a guest 10 seconds."""
    match name:
        case "meta-data":
            return seed.meta_data.encode()
        case "user-data":
            return seed.user_data
        case "vendor-data":
            return phone_home.hook(f"{url}phone-home").encode()
    return seed.network_config.encode()


async def receive_call(source: Source, request: Request, secret: str) -> None:
    """Forward a guest's call. Raises Refused, NoAnswer; after a 503 the guest tries again."""
    async with asyncio.timeout(BODY_SECONDS):
        body = await limited(request)
    try:
        call = phone_home.parse(body)
    except ValueError as error:
        raise Refused(400, str(error)) from error
    boot = (name_of(secret), call.boot)
    match source.called.before(boot, call):
        case True:  # the guest did not get the answer, and repeats its call
            return
        case False:
            raise Refused(409, "the guest has made another call in this boot", "repeat")
    try:
        await source.asker.ready(secret, call)
    except CallRefused as error:
        raise Refused(400, str(error), "call") from error
    except (UnknownSecret, Withheld) as error:
        raise Refused(404, str(error), "secret") from error
    source.called.note(boot, call)


async def limited(request: Request) -> bytes:
    """The body of the request. Raises Refused (413) if it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > phone_home.MOST:
            raise Refused(413, "body too large")
    return bytes(body)
