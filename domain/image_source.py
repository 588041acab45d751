"""The source of an image: an absolute path, or an http(s) URL. Anything that cannot be one of these is refused."""

import re
from ipaddress import IPv6Address
from typing import Annotated, Any
from urllib.parse import urlsplit

import idna
from pydantic import AfterValidator, Field, StringConstraints

#: Maximum number of bytes of a path, and of one name in it, on Linux.
MOST_PATH, MOST_NAME = 4095, 255

_HOST = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}")
_PORT = re.compile(r"[0-9]{1,5}")


def checked(source: str) -> str:
    """The source, if it is valid. Raises ValueError; its text does not repeat the source, which may hold a password."""
    unprintable = next((char for char in source if not char.isprintable()), None)
    if unprintable is not None:
        raise ValueError(f"has a character in it that is not printable ({unprintable!a})")
    if source.startswith("/"):
        return _path(source)
    scheme, colon, rest = source.partition("://")
    if not colon:
        raise ValueError("has to be an absolute path, which begins with /, or an http(s) URL")
    if scheme.lower() not in ("http", "https"):
        what = "give the path itself, beginning with /" if scheme.lower() == "file" else "use an http or https URL"
        named = f"a URL of {scheme!r}" if _SCHEME.fullmatch(scheme) else "not a URL"  # it may be a password
        raise ValueError(f"is {named}, which cannot be used: {what}")
    if " " in rest:
        raise ValueError("has a space in its URL; write it as %20")
    source = f"{scheme.lower()}://{rest}"
    _url(source)
    return source


def _path(source: str) -> str:
    try:
        names = source.encode().split(b"/")
    except UnicodeEncodeError:
        raise ValueError("has to be printable characters") from None
    if len(source.encode()) > MOST_PATH or any(len(name) > MOST_NAME for name in names):
        raise ValueError(f"has a path of more than {MOST_PATH} bytes, or a name in it of more than {MOST_NAME} bytes")
    return source


def _url(source: str) -> None:
    if "\\" in source or "#" in source:
        raise ValueError("has to be a URL without a backslash and without a fragment (#…)")
    try:
        parts = urlsplit(source)
    except ValueError:
        raise ValueError(
            "is not a valid URL; write an IPv6 address in square brackets, as in http://[2001:db8::1]/image"
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
            "is a URL whose port is not a number from 1 to 65535; write an IPv6 address in square brackets"
        )
    if bracketed:
        try:
            IPv6Address(host)
        except ValueError:
            raise ValueError("is a URL with square brackets that do not contain an IPv6 address") from None
        if "%" in host:
            raise ValueError("is a URL with an IPv6 zone; leave the zone out")
    else:
        _name(host)


def _name(host: str) -> None:
    """Raises ValueError if the host is not a valid DNS name."""
    try:
        ascii_name = host.lower() if host.isascii() else idna.encode(host, uts46=True).decode()
        for label in ascii_name.split("."):
            if label.startswith("xn--"):
                idna.decode(label)
    except (idna.IDNAError, UnicodeError):
        raise ValueError("is a URL whose host is not a valid name") from None
    if not _HOST.fullmatch(ascii_name):
        raise ValueError("is a URL whose host is not a valid name")


_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HEX = "[0-9A-Fa-f]{1,4}"
_VISIBLE = r"[\p{L}\p{M}\p{N}\p{P}\p{S}]"
#: The JSON Schema of a source. It is stricter than `checked`, which also accepts host names that are not ASCII.
SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"pattern": rf"^/(?!.*[^/]{{{MOST_NAME + 1}}})({_VISIBLE}| )+$"},  # counts characters of a name, not bytes
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
"""The path or URL of an image."""
