"""The body of a call: JSON in UTF-8 as it is, in which each name stands once."""

import json
import re
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from gateway.http.problems import Problem

#: How deep arrays and objects may stand in each other.
MOST_DEPTH = 32
#: The largest body, in bytes, for the fast check.
MOST_PLAIN = 2000
BOM = b"\xef\xbb\xbf"


async def read(request: Request) -> bytes:
    """The body of a call; empty where it has none. Raises Problem for what cannot be JSON."""
    headers = framing(request)
    raw = await received(request)
    if not raw:
        if headers.get(b"content-length", b"0").strip(b"0") or b"transfer-encoding" in headers:
            raise Problem(400, "incomplete_body", "a body was announced, and none came")
        return raw
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        detail = "send the body as it is, without Content-Encoding"
        raise Problem(415, "unsupported_content_encoding", detail, [("Content-Encoding", detail)])
    kind, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    charset = parameters.replace(b" ", b"").replace(b'"', b"")
    if kind.strip() != b"application/json" or charset not in (b"", b"charset=utf-8"):
        detail = "has to be application/json (in UTF-8)"
        raise Problem(415, "unsupported_media_type", f"Content-Type {detail}", [("Content-Type", detail)])
    check(raw)
    return raw


def framing(request: Request) -> dict[bytes, bytes]:
    """The headers that say what a body is. Raises Problem where one is given twice."""
    found: dict[bytes, bytes] = {}
    for name, value in request.scope["headers"]:
        if name in (b"content-type", b"content-encoding", b"content-length", b"transfer-encoding"):
            if name in found:
                shown = name.decode().title()
                raise Problem(400, "invalid_parameter", f"{shown}: given more than once", [(shown, "given twice")])
            found[name] = value
    return found


async def received(request: Request) -> bytes:
    """All of the body; nearly always it comes in one piece."""
    message = await request.receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return bytes(message.get("body", b""))
    parts = []
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await request.receive()
    raise ClientDisconnect


class Repeated(ValueError):
    """A name that stands twice in one object."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise Repeated(name)
            seen.add(name)
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=once)


def check(raw: bytes) -> None:
    """Refuse what is not JSON, and what two readers could read in two ways. Raises Problem (400)."""
    if plain(raw):
        return
    if raw.startswith(BOM):
        raise invalid("it begins with a byte order mark; send it without")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise invalid(f"it is not UTF-8 at byte {error.start}") from error
    if deep(raw):
        raise invalid(f"its arrays and objects may be {MOST_DEPTH} deep")
    try:
        _DECODER.decode(text)
    except Repeated as error:
        name = str(error)[:200].encode(errors="replace").decode()
        detail = f"the body has the name {name} twice in one object"
        raise Problem(400, "duplicate_name", detail, [(name, "given more than once")]) from error
    except json.JSONDecodeError as error:
        raise invalid(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except (RecursionError, ValueError) as error:  # also a number with thousands of digits
        raise invalid("it has a number or a depth beyond measure") from error


def plain(raw: bytes) -> bool:
    """Whether it is one small object without others in it, in which each name stands once: as most bodies are.

    A colon that separates no name from its value makes it not plain.
    """
    if len(raw) > MOST_PLAIN or raw.count(b"{") != 1 or b"[" in raw:
        return False
    try:
        found = from_json(raw)
    except ValueError:
        return False
    return isinstance(found, dict) and raw.count(b":") == len(found)


#: A string, or what begins one and is never closed.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def deep(raw: bytes) -> bool:
    """Whether it is too deep. Counted only where there are many brackets at all."""
    if raw.count(b"[") + raw.count(b"{") <= MOST_DEPTH:
        return False
    depth = 0
    for bracket in _STRING.sub(b"", raw).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MOST_DEPTH:
            return True
    return False


def invalid(detail: str) -> Problem:
    return Problem(400, "invalid_json", f"the body is not JSON: {detail}")
