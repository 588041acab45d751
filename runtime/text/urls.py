"""URLs of images as people may see them: credentials and signatures in them are secrets."""

import re
from urllib.parse import urlsplit, urlunsplit

HIDDEN = "***"

_VALUE = re.compile(r"(?<==)[^&;]+")


def is_url(source: str) -> bool:
    return source[:8].lower().startswith(("http://", "https://"))


def shown(source: str) -> str:
    """The source of an image without its secrets: user and password, the values of its query, the fragment.

    It is for people alone. Whatever is no URL stays as it is, and what cannot be read as one is not shown at all.
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
    """Whether there is anything in the source of an image that may not be shown."""
    return shown(source) != source


def plain(text: str, most: int = 300) -> str:
    """What a library or a server said, on one line of printable characters, and not too long."""
    cleaned = "".join(char if char.isprintable() else "?" for char in text)
    return cleaned if len(cleaned) <= most else f"{cleaned[:most]}…"
