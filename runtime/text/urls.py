"""URLs of images without their secrets: credentials and signatures."""

import re
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"

_VALUE = re.compile(r"(?<==)[^&;]+")


def is_url(source: str) -> bool:
    return source[:8].lower().startswith(("http://", "https://"))


def shown(source: str) -> str:
    """The source of an image for people: without user and password, the values of its query, and the fragment.

    A path stays unchanged. A URL that cannot be parsed is hidden completely.
    """
    if not is_url(source):
        return source
    try:
        parts = urlsplit(source)
    except ValueError:
        return f"{source.split(':', 1)[0]}://{HIDDEN}"
    user, at, host = parts.netloc.rpartition("@")
    query = _VALUE.sub(HIDDEN, parts.query) if "=" in parts.query else HIDDEN * bool(parts.query)
    return urlunsplit((parts.scheme, f"{HIDDEN * bool(user)}{at}{host}", parts.path, query, ""))


def secret(source: str) -> bool:
    """Whether the source of an image contains a secret."""
    return shown(source) != source


def plain(text: str, most: int = 300) -> str:
    """A message of a library or a server on one line of printable characters, cut after `most` of them."""
    cleaned = "".join(char if char.isprintable() else "?" for char in text)
    return cleaned if len(cleaned) <= most else f"{cleaned[:most]}…"
