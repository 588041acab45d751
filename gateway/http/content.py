"""The body of a call: plain JSON in UTF-8, in which each name of an object is unique."""

import json
import re
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from gateway.http.problems import Problem

#: Maximum nesting depth of arrays and objects.
MOST_DEPTH = 32
#: The largest body, in bytes, for the fast check.
MOST_PLAIN = 2000
BOM = b"\xef\xbb\xbf"


async def read(request: Request) -> bytes:
    """The body of a call; empty if it has none. Raises Problem if it is not JSON."""
    headers = framing(request)
    raw = await received(request)
    if not raw:
        if headers.get(b"content-length", b"0").strip(b"0") or b"transfer-encoding" in headers:
            raise Problem(
                400,
                "incomplete_body",
                "the headers announce a body, but there is none: send the body, or no Content-Length",
            )
        return raw
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        detail = "send the body without Content-Encoding"
        raise Problem(415, "unsupported_content_encoding", detail, [("Content-Encoding", detail)])
    kind, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    charset = parameters.replace(b" ", b"").replace(b'"', b"")
    if kind.strip() != b"application/json" or charset not in (b"", b"charset=utf-8"):
        detail = "has to be application/json (in UTF-8)"
        raise Problem(415, "unsupported_media_type", f"Content-Type {detail}", [("Content-Type", detail)])
    check(raw)
    return raw


def framing(request: Request) -> dict[bytes, bytes]:
    """The headers about the body. Raises Problem if one of them is given twice."""
    found: dict[bytes, bytes] = {}
    for name, value in request.scope["headers"]:
        if name in (b"content-type", b"content-encoding", b"content-length", b"transfer-encoding"):
            if name in found:
                shown = name.decode().title()
                raise Problem(400, "invalid_parameter", f"{shown}: given more than once", [(shown, "given twice")])
            found[name] = value
    return found


async def received(request: Request) -> bytes:
    """The whole body; it nearly always arrives in one piece."""
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
    """A name that is twice in one object."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise Repeated(name)
            seen.add(name)
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=once)


def check(raw: bytes) -> None:
    """Refuse a body that is not JSON, or is ambiguous. Raises Problem (400)."""
    if plain(raw):
        return
    if raw.startswith(BOM):
        raise invalid("it begins with a byte order mark; send it without one")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise invalid(f"it is not UTF-8 at byte {error.start}") from error
    if deep(raw):
        raise invalid(f"its arrays and objects may be nested at most {MOST_DEPTH} deep")
    try:
        _DECODER.decode(text)
    except Repeated as error:
        name = str(error)[:200].encode(errors="replace").decode()
        detail = f"the body has the name {name} twice in one object"
        raise Problem(400, "duplicate_name", detail, [(name, "given more than once")]) from error
    except json.JSONDecodeError as error:
        raise invalid(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except (RecursionError, ValueError) as error:  # also a number with thousands of digits
        raise invalid("it has a number with too many digits, or it is nested too deeply") from error


def plain(raw: bytes) -> bool:
    """Whether it is a small object without nested values and without repeated names, as most bodies are.

    A colon inside a string makes the answer False.
    """
    if len(raw) > MOST_PLAIN or raw.count(b"{") != 1 or b"[" in raw:
        return False
    try:
        found = from_json(raw)
    except ValueError:
        return False
    return isinstance(found, dict) and raw.count(b":") == len(found)


#: A string, or the beginning of a string that is never closed.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def deep(raw: bytes) -> bool:
    """Whether it is nested too deeply. Brackets are counted only if there are many."""
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
