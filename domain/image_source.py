"""What can be the source of an image: an absolute path, or an http(s) URL. What is plainly neither is refused."""

import re
from ipaddress import IPv6Address
from typing import Annotated, Any
from urllib.parse import urlsplit

import idna
from pydantic import AfterValidator, Field, StringConstraints

#: Bytes of a path, and of one name in it, that a file system takes.
MOST_PATH, MOST_NAME = 4095, 255

_HOST = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}")
_PORT = re.compile(r"[0-9]{1,5}")


def checked(source: str) -> str:
    """The source, when it can be one. Raises ValueError, with a text for people that does not repeat it."""
    odd = next((char for char in source if not char.isprintable()), None)
    if odd is not None:
        raise ValueError(f"has a character in it that is not printable ({odd!a})")
    if source.startswith("/"):
        return _path(source)
    scheme, colon, rest = source.partition("://")
    if not colon:
        raise ValueError("has to be an absolute path, which begins with /, or an http(s) URL")
    if scheme.lower() not in ("http", "https"):
        what = "give the path itself, beginning with /" if scheme.lower() == "file" else "images come by http or https"
        named = f"a URL of {scheme!r}" if _SCHEME.fullmatch(scheme) else "no URL"  # what stands there may be a password
        raise ValueError(f"is {named}, which cannot be used: {what}")
    if " " in rest:
        raise ValueError("has a blank in its URL: a blank is written %20 there")
    source = f"{scheme.lower()}://{rest}"
    _url(source)
    return source


def _path(source: str) -> str:
    try:
        names = source.encode().split(b"/")
    except UnicodeEncodeError:
        raise ValueError("has to be printable characters") from None
    if len(source.encode()) > MOST_PATH or any(len(name) > MOST_NAME for name in names):
        raise ValueError("is a longer path than any file system has")
    return source


def _url(source: str) -> None:
    if "\\" in source or "#" in source:
        raise ValueError("has to be a URL without a backslash and without a fragment (#…)")
    try:
        parts = urlsplit(source)
    except ValueError:
        raise ValueError(
            "is no URL: an IPv6 address stands in square brackets, as in http://[2001:db8::1]/image"
        ) from None
    where = parts.netloc.rpartition("@")[2]
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", where)
    host, port = bracketed.groups() if bracketed else (where.partition(":")[0], where.partition(":")[2] or None)
    if port is None and where.endswith(":"):
        port = ""
    if not host:
        raise ValueError("is a URL without a host")
    if port is not None and not (_PORT.fullmatch(port) and 0 < int(port) < 65536):
        raise ValueError(
            "is a URL with a port that is no number from 1 to 65535; an IPv6 address stands in square brackets"
        )
    if bracketed:
        try:
            IPv6Address(host)
        except ValueError:
            raise ValueError("is a URL with square brackets around what is no IPv6 address") from None
        if "%" in host:
            raise ValueError("is a URL with an IPv6 zone")
    else:
        _name(host)


def _name(host: str) -> None:
    """Raises ValueError for what no name server can be asked for."""
    try:
        ascii_name = host.lower() if host.isascii() else idna.encode(host, uts46=True).decode()
        for label in ascii_name.split("."):
            if label.startswith("xn--"):
                idna.decode(label)
    except (idna.IDNAError, UnicodeError):
        raise ValueError("is a URL whose host is no name") from None
    if not _HOST.fullmatch(ascii_name):
        raise ValueError("is a URL whose host is no name")


_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HEX = "[0-9A-Fa-f]{1,4}"
_VISIBLE = r"[\p{L}\p{M}\p{N}\p{P}\p{S}]"
#: What can be a source, as JSON Schema can say it: host names that are not ASCII may also stand in a URL, in their
#: `xn--` form as well, if there are such names.
SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"pattern": rf"^/(?!.*[^/]{{{MOST_NAME + 1}}})({_VISIBLE}| )+$"},  # (a name's bytes cannot be counted)
        {
            "pattern": r"^[hH][tT][tT][pP][sS]?://([A-Za-z0-9._~!$&'()*+,;=:%-]*@)?"
            rf"({_LABEL}(\.{_LABEL})*\.?|\[({_HEX}:){{7}}{_HEX}\]|\[({_HEX}:){{1,6}}:{_HEX}\]|\[::({_HEX})?\])"
            r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
            r"([/?](?:[\p{L}\p{M}\p{N}\p{S}!%&(),.:;@*?'{}/_~\[\]-])*)?$"
        },
    ]
}
Source = Annotated[
    str,
    StringConstraints(min_length=2, max_length=2048),
    AfterValidator(checked),
    Field(json_schema_extra=SCHEMA),
]
"""Where an image is."""
