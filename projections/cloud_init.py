"""The cloud-init data source: what a guest is told of itself at boot, at a URL that only this boot of it knows.

`/<secret>/meta-data`, `user-data`, `vendor-data` and `network-config`, as stock images ask for them (NoCloud over
HTTP), and `POST /<secret>/phone-home` when cloud-init has finished, at each boot.

- Whoever does not know a secret learns nothing: every refusal of a path or a secret is the same 404.
- A guest may be faster than the read models: a secret that is not known yet is looked for again once they are as new as
  the log was when it was asked for. Where that takes too long it is told to try again, not that there is nothing.
- A guest waits for an answer without limit, so none takes longer than a few seconds.
- The same instance id for the life of the VM's disk, answered at every boot: otherwise a guest would take itself for a
  new machine and make new SSH host keys. On a new disk it is one.
"""

import asyncio
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import yaml
from nats.aio.client import Client
from nats.errors import Error as NatsError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from domain.contract import Caller, CommandRequest
from eventstore.log.store import EventStore, Unavailable
from eventstore.vault.vault import Erased, VaultUnavailable
from projections import phone_home, seeds, ssh
from projections.database import Away, Pool
from projections.model import Secrets
from projections.position import Position
from projections.rate import Rate
from projections.seeds import Seed
from runtime import logs, requests, subjects
from runtime.replies import Nonsense
from runtime.requests import Patience, Unanswered

log = logs.get(__name__)

#: Seconds that an unknown secret waits for the read models.
PATIENCE = 3.0
#: Seconds for a guest to send its body, and for handlers to answer.
BODY_SECONDS = 10.0
COMMAND_SECONDS = 5.0

_PATH = re.compile(r"/([A-Za-z0-9_-]{16,128})/([a-z-]{1,20})")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
DOCUMENTS = ("meta-data", "user-data", "vendor-data", "network-config")
#: Headers that proxies add: nobody may stand between a guest and its data.
FORWARDED = ("x-forwarded-for", "x-forwarded-host", "forwarded", "x-real-ip", "via")


class Refused(Exception):
    """The answer is not a document. `reason` is for the log; guests are told by status alone."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Source:
    """The data source as an ASGI application."""

    nc: Client
    pool: Pool
    secrets: Secrets
    position: Position
    #: of one VM: documents, of which a boot asks for four; and calls, of which a boot makes one, with a few tries
    asks: Rate = field(default_factory=lambda: Rate(60, 1.0))
    calls: Rate = field(default_factory=lambda: Rate(10, 0.1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        started = time.perf_counter()
        fields: dict[str, Any] = {"client": request.client.host if request.client else None}
        try:
            response = await answer(self, request, fields)
        except Refused as refused:
            response = refusal(refused.status)
            fields["reason"] = refused.reason
        except (Away, Unavailable, VaultUnavailable, NatsError, OSError, TimeoutError) as error:
            response = refusal(503)
            fields["reason"] = f"{type(error).__name__}: {error}"
        except ClientDisconnect:
            return
        except Exception:
            log.exception("data source failed", **fields)
            response = refusal(503)
        milliseconds = round((time.perf_counter() - started) * 1e3, 1)
        log.info("seed asked", method=request.method, status=response.status_code, ms=milliseconds, **fields)
        await response(scope, receive, send)


def refusal(status: int) -> Response:
    """An answer that says nothing but its status."""
    text = {400: "bad request\n", 413: "too large\n", 429: "too often\n", 503: "try again\n"}.get(status, "not found\n")
    headers = {"Retry-After": "1" if status == 503 else "10"} if status in (429, 503) else None
    return Response(text, status, headers, "text/plain")


async def answer(source: Source, request: Request, fields: dict[str, Any]) -> Response:
    """The answer to one request; what is worth logging is added to `fields`. Raises Refused."""
    path = _PATH.fullmatch(request.scope["path"])
    if path is None or any(name in request.headers for name in FORWARDED):
        raise Refused(404, "no such path, or forwarded")
    secret, name = path.groups()
    posted = request.method == "POST" and name == "phone-home"
    if not posted and not (request.method in ("GET", "HEAD") and name in DOCUMENTS):
        raise Refused(404, "no such path")
    fields["document"] = name
    seed = await known(source, secret)
    fields.update(vm=seed.vm, project=seed.project)
    if not (source.calls if posted else source.asks).allows(seed.vm, time.monotonic()):
        raise Refused(429, "asks too often")
    if posted:
        await receive_call(source, request, seed)
        return Response("ok\n", media_type="text/plain")
    return Response(await document(source, seed, name, base(request, secret)), media_type="text/plain")


async def known(source: Source, secret: str) -> Seed:
    """The seed that a secret opens. Raises Refused: 404 where there is none; 503 while the read models cannot know."""
    found = await seeds.find(source.pool, secret)
    if found is not None:
        return found
    end = await EventStore(source.nc).last_position()
    caught_up = await source.position.reach(end, PATIENCE)
    found = await seeds.find(source.pool, secret)
    if found is not None:
        return found
    if not caught_up:
        raise Refused(503, f"unknown secret, and the read models stand at {source.position.value} of {end}")
    raise Refused(404, "unknown secret")


def base(request: Request, secret: str) -> str:
    """The URL of this seed as the guest itself reached it."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise Refused(400, "bad Host")
    return f"http://{host}/{secret}/"


async def document(source: Source, seed: Seed, name: str, url: str) -> bytes:
    """One document of a seed. What a VM has none of is empty, never missing: a 404 costs a guest 10 seconds."""
    match name:
        case "meta-data":
            return meta_data(seed).encode()
        case "user-data" if seed.user_data is not None:
            try:
                return await source.secrets.unsealed(seed.user_data)
            except Erased as error:
                raise Refused(404, "key destroyed") from error
        case "vendor-data":
            return phone_home.hook(f"{url}phone-home").encode()
    return b""


def meta_data(seed: Seed) -> str:
    """YAML: who the guest is, and who may log in."""
    return as_yaml(
        {
            "instance-id": seed.instance_id,
            "local-hostname": seed.name,
            "public-keys": [ssh.fit(key) for key in seed.ssh_keys],
        }
    )


def as_yaml(document: dict[str, Any]) -> str:
    """YAML in ASCII, by the library that cloud-init reads it with. (JSON is no YAML: its escapes are other ones.)"""
    return yaml.safe_dump(document, sort_keys=False, width=float("inf"))


async def receive_call(source: Source, request: Request, seed: Seed) -> None:
    """Turn a guest's call into a command. Raises Refused; 503 makes cloud-init try again."""
    async with asyncio.timeout(BODY_SECONDS):
        body = await limited(request)
    try:
        call = phone_home.parse(body)
    except ValueError as error:
        raise Refused(400, str(error)) from error
    if call.instance_id != seed.instance_id:
        raise Refused(400, "the instance id of another machine")
    args = {"vm": seed.vm, "boots": seed.asked, **call.model_dump(mode="json", exclude={"instance_id"})}
    asked = CommandRequest(args=args, context=Caller(actor=f"guest:{seed.vm}", request=str(uuid.uuid4())))
    subject = subjects.command(seed.project, "vm", "guest-ready")
    try:
        await requests.asked(source.nc, subject, asked.body(), Patience(COMMAND_SECONDS), lambda said: said)
    except Nonsense as error:
        raise Refused(503, f"the handlers answered nonsense: {error}") from error
    except Unanswered as error:
        raise Refused(503, f"{type(error).__name__}: {error}") from error
    except requests.Refused as refused:
        raise Refused(503 if refused.refusal.status >= 500 else 400, str(refused)) from refused


async def limited(request: Request) -> bytes:
    """The body, when it is not too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > phone_home.MOST:
            raise Refused(413, "body too large")
    return bytes(body)
