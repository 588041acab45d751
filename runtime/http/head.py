"""The head of a request: its request line and headers, parsed strictly by RFC 9112. No I/O."""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from runtime.http.limits import Limits
from runtime.http.refusal import Refused, malformed

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(rb"(%b) ([\x21\x22\x24-\x7e]+) HTTP/([0-9])\.([0-9])" % _TOKEN)
_HEADERS = re.compile(rb"(?:%b:[\t\x20-\x7e\x80-\xff]*\r\n)*" % _TOKEN)
_ABSOLUTE = re.compile(rb"https?://([^/?]+)(/[^?]*)?(\?.*)?", re.IGNORECASE)
_HOST = re.compile(rb"[A-Za-z0-9._~-]*(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SLASH = re.compile(b"%2F", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,15}")
MOST_METHOD = 32

#: Headers that may occur only once. They and a few others (DECISIVE) decide how a message is read, or for whom.
SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding", b"authorization", b"origin"})
DECISIVE = SINGLE | {b"connection", b"upgrade", b"expect"}
#: Methods whose requests have a body. With HTTP/1.0 they need a Content-Length.
WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})


@dataclass(slots=True)
class Head:
    """A request without its body. `length`: of the body in bytes; None if it is sent in chunks."""

    method: str
    version: str
    path: str
    raw_path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    length: int | None
    keep_alive: bool
    #: the client waits for `100 Continue`
    expects: bool
    #: the protocol in the client's Upgrade header, in lower case
    upgrade: bytes | None


def parse(raw: bytes, limits: Limits) -> Head:
    """Parse a head, including the empty line at its end. Raises Refused."""
    line, _, block = raw[:-2].partition(b"\r\n")
    found = _LINE.fullmatch(line)
    if found is None:
        raise malformed("the request line must be `METHOD target HTTP/1.1`")
    name, target, major, minor = found.groups()
    if major != b"1" or minor not in b"01":
        raise Refused(505, "unsupported_version", "this server speaks HTTP/1.1 and HTTP/1.0")
    if len(name) > MOST_METHOD:
        raise malformed(f"the method may have at most {MOST_METHOD} characters")
    if len(target) > limits.target:
        raise Refused(414, "target_too_long", f"the request's target may have at most {limits.target} bytes")
    if not _HEADERS.fullmatch(block):
        raise malformed("each header must be `name: value` on one line that ends in CR LF")
    headers, decisive = fields(block, limits)
    version = "1.1" if minor == b"1" else "1.0"
    host = decisive.get(b"host")
    if (host is None and version == "1.1") or not _HOST.fullmatch(host or b""):
        raise malformed("Host must be given once, as a name or an address with or without a port")
    raw_path, query = target, b""
    if target[:1] == b"/":
        raw_path, _, query = target.partition(b"?")
    elif target != b"*" or name != b"OPTIONS":
        raw_path, query, authority = absolute(target)
        headers = [(b"host", authority), *(each for each in headers if each[0] != b"host")]
    length = body_length(decisive, version, limits)
    if version == "1.0" and name in WITH_BODY and b"content-length" not in decisive:
        raise Refused(411, "length_required", "send Content-Length with the length of the body, 0 if there is none")
    tokens = decisive.get(b"connection", b"").lower()
    return Head(
        method=name.decode(),
        version=version,
        path=decoded(raw_path),
        raw_path=raw_path,
        query=checked(query),
        headers=headers,
        length=length,
        keep_alive=version == "1.1" and b"close" not in split_list(tokens),
        expects=expects_continue(decisive, version),
        upgrade=decisive[b"upgrade"].lower() if b"upgrade" in decisive and b"upgrade" in split_list(tokens) else None,
    )


def fields(block: bytes, limits: Limits) -> tuple[list[tuple[bytes, bytes]], dict[bytes, bytes]]:
    """All headers, and the decisive ones by name. Raises Refused."""
    lines = block.split(b"\r\n")[:-1]
    if len(lines) > limits.headers:
        raise Refused(431, "headers_too_large", f"a request may have at most {limits.headers} headers")
    headers = []
    decisive: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        headers.append((name, value))
        if name in DECISIVE:
            if name in decisive:
                if name in SINGLE:
                    raise malformed(f"{name.decode()} is given more than once")
                value = decisive[name] + b", " + value
            decisive[name] = value
    return headers, decisive


def body_length(decisive: dict[bytes, bytes], version: str, limits: Limits) -> int | None:
    """The length of the body in bytes; None for chunks. Raises Refused if there are two possible readings."""
    coding = decisive.get(b"transfer-encoding")
    length = decisive.get(b"content-length")
    if coding is not None:
        if length is not None or version == "1.0":
            raise malformed("Transfer-Encoding cannot be used with Content-Length, nor with HTTP/1.0")
        if coding.lower() != b"chunked":
            raise Refused(501, "unsupported_transfer_encoding", "Transfer-Encoding must be chunked")
        return None
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise malformed("Content-Length must be one whole number")
    announced = int(length)
    if announced > limits.body:
        raise too_large(limits)
    return announced


def too_large(limits: Limits) -> Refused:
    return Refused(413, "body_too_large", f"a body may have at most {limits.body} bytes")


def expects_continue(decisive: dict[bytes, bytes], version: str) -> bool:
    """Whether the client waits for `100 Continue`. Raises Refused for any other expectation."""
    expect = decisive.get(b"expect")
    if expect is None or version == "1.0":
        return False
    if expect.lower() != b"100-continue":
        raise Refused(417, "expectation_failed", "Expect can only be 100-continue")
    return True


def absolute(target: bytes) -> tuple[bytes, bytes, bytes]:
    """Path, query and authority of a target in absolute form. The authority replaces Host. Raises Refused."""
    found = _ABSOLUTE.fullmatch(target)
    if found is None or not _HOST.fullmatch(found[1]):
        raise malformed("the request's target must be a path, or an http URL")
    return found[2] or b"/", (found[3] or b"?")[1:], found[1]


def decoded(path: bytes) -> str:
    """The decoded path. Raises Refused, also for an escaped slash, which programs read differently."""
    if b"%" not in path:
        return path.decode()
    if _SLASH.search(path):
        raise Refused(404, "no_such_route", "no path with an escaped slash exists")
    return unescaped(path, "path")


def checked(query: bytes) -> bytes:
    if b"%" in query:
        unescaped(query, "query")
    return query


def unescaped(text: bytes, what: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise malformed(f"each % in the {what} must be followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise malformed(f"the {what} must be UTF-8") from error


def split_list(value: bytes) -> list[bytes]:
    return [token.strip() for token in value.split(b",")]
