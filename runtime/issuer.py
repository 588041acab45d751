"""Which URLs of an OIDC issuer may be asked."""

from urllib.parse import urlsplit

#: Hosts that can only be reached from this machine. Only these may be asked without TLS.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def judged(url: str) -> str:
    """The URL, if it can be asked without harm: https, or http on loopback. Raises ValueError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url and port != 0
    if not plain or not parts.hostname or parts.username is not None or parts.fragment:
        raise ValueError("must be a URL like https://login.example.org, without user and fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError("must be https (http on loopback only)")
    return url


def issuer(url: str) -> str:
    """The URL of an issuer. Raises ValueError."""
    if "?" in url or "#" in url:
        raise ValueError("must be a URL like https://login.example.org, without query and fragment")
    return judged(url)


def within(url: str, asked: str) -> str:
    """A URL that an issuer gives. Without TLS it has to be on the issuer's own host. Raises ValueError."""
    judged(url)
    if urlsplit(url).scheme != "https" and urlsplit(url).netloc != urlsplit(asked).netloc:
        raise ValueError("must be https, or on the issuer's own host")
    return url
