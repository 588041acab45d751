"""Which paths the console has, as an ASGI application beside the API's routes. It knows no caller and no state.

- `/`, `/console` and `/console/…`: the page. What it shows follows from the address, in the browser.
- `/console/files/<digest>/…`: the files of `web/`, and below `vendor/` those of other projects. An address always has
  the same content, so browsers may keep it.
"""

import asyncio
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.console import shell, vendor
from gateway.console.files import File, digest, file_of, read
from gateway.console.served import served
from gateway.http import problems
from runtime import logs

log = logs.get(__name__)

METHODS = ("GET", "HEAD")
#: With this header a browser reads a service worker, which would answer for the gateway from then on. There is none.
SERVICE_WORKER = b"service-worker"
#: A year, in seconds.
FOR_EVER = "public, max-age=31536000, immutable"


class Console:
    """The console's files. `folder`: the npm packages; None for where `make setup` installs them."""

    def __init__(self, folder: Path | None = None) -> None:
        self._vendor = vendor.installed(folder)
        self._read: dict[str, File] = {}
        texts = read()
        template = texts.pop("index.html")
        missing = self._vendor.missing()
        if not missing:
            texts = served(texts, self._vendor.joined())
        self._files = {name: file_of(text.encode(), name) for name, text in texts.items()}
        self._digest = digest(self._files, self._vendor.versions)
        self._base = f"{shell.FILES}/{self._digest}/"
        self._page = file_of(shell.page(template, self._digest).encode(), "index.html")
        self._missing: File | None = None
        if missing:
            log.warning("the console is incomplete", missing=missing, folder=str(self._vendor.folder))
            self._missing = file_of(shell.incomplete(missing, vendor.COMMAND).encode(), "index.html")

    def serves(self, path: str) -> bool:
        """Whether a path is the console's."""
        return path in ("/", "/console") or path.startswith("/console/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. Raises HTTPException (404), Problem (405)."""
        scope["nebula.route"] = "GET /console"
        if scope["method"] not in METHODS:
            raise problems.method_not_allowed(METHODS)
        if SERVICE_WORKER in (name for name, _ in scope["headers"]):
            raise HTTPException(404)
        path: str = scope["path"]
        if path.startswith(f"{shell.FILES}/") or path == shell.FILES:
            headers = {"Cache-Control": FOR_EVER, "Content-Security-Policy": shell.OF_FILES}
            file, status = await self._file(path), 200
        elif self._missing is not None:
            file, status, headers = self._missing, 503, dict(shell.HEADERS)
        else:
            file, status, headers = self._page, 200, dict(shell.HEADERS)
        response = await answer(scope, file, status, headers)
        await response(scope, receive, send)

    async def _file(self, path: str) -> File:
        """The file of a path. Raises HTTPException (404)."""
        name = path.removeprefix(self._base)
        if name == path:
            raise HTTPException(404)
        inside = name.removeprefix("vendor/")
        found = self._files.get(name) if inside == name else await self._of_others(inside)
        if found is None:
            raise HTTPException(404)
        return found

    async def _of_others(self, path: str) -> File | None:
        """A file of a package, which is read at its first use."""
        known = self._read.get(path)
        if known is None:
            raw = await asyncio.to_thread(self._vendor.read, path)
            if raw is None:
                return None
            known = self._read[path] = file_of(raw, path)
        return known


async def answer(scope: Scope, file: File, status: int, headers: dict[str, str]) -> Response:
    """A file, compressed if the browser can read that; 304 if it has the file already."""
    given = dict(scope["headers"])
    sent = {"ETag": file.etag, "Vary": "Accept-Encoding", **headers}
    if status == 200 and file.etag.encode() in given.get(b"if-none-match", b"").split(b", "):
        return Response(None, 304, sent)
    if accepts_gzip(given.get(b"accept-encoding", b"").decode("latin-1")):
        return Response(await file.packed(), status, {**sent, "Content-Encoding": "gzip", "Content-Type": file.type})
    return Response(await file.plain(), status, {**sent, "Content-Type": file.type})


def accepts_gzip(header: str) -> bool:
    """Whether an `Accept-Encoding` names gzip, with a weight above 0."""
    for each in header.lower().replace(" ", "").split(","):
        name, _, weight = each.partition(";q=")
        if name == "gzip":
            return weight.strip("0.") != "" or not weight
    return False
