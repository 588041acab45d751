"""Calls of the JetStream API, whose subjects have another name in accounts that import them."""

from nats.aio.client import Client

from runtime.bus.accounts.table import API


def prefix(nc: Client) -> str:
    """The name of the JetStream API on this connection."""
    return str(getattr(nc, "api", API))


def api(nc: Client, call: str) -> str:
    """The subject of a call, such as `STREAM.INFO.<stream>`, on this connection."""
    return f"{prefix(nc)}.{call}"


def has_accounts(nc: Client) -> bool:
    """Whether this connection has a credential of one of the platform's accounts."""
    return bool(getattr(nc, "accounts", False))


def is_imported(nc: Client) -> bool:
    """Whether the streams are in another account than this connection, which may not change them then."""
    return prefix(nc) != API


def imports(nc: Client) -> bool:
    """Whether the streams are in another account, where this connection cannot create consumers."""
    return bool(getattr(nc, "imports", False))


def guests_of(nc: Client) -> str | None:
    """The node of whose guests this connection speaks; None: of those of any node."""
    node = getattr(nc, "guests", None)
    return str(node) if node is not None else None
