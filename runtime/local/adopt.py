"""Moves the streams of a server without accounts, as earlier versions started it, to the account CONTROL."""

from pathlib import Path

from runtime.files.files import sync
from runtime.local.child import ServerError

#: nats-server's name for the account of a server that has none.
GLOBAL = "$G"


def adopt(store: Path, account: str) -> bool:
    """Rename the folder of the streams in one step. Call it while the server is stopped. Returns whether it was done.

    Raises ServerError if both folders have streams, OSError.
    """
    before, now = store / "jetstream" / GLOBAL, store / "jetstream" / account
    if not _has_streams(before):
        return False
    if _has_streams(now):
        raise ServerError(
            f"{before} and {now} both have streams: an earlier version has run on this home after a newer one; "
            "move the folder away whose streams are not wanted"
        )
    if now.exists():
        spare = now.with_name(f"{now.name}.empty")
        now.rename(spare)
    before.rename(now)
    sync(now.parent)
    return True


def _has_streams(folder: Path) -> bool:
    streams = folder / "streams"
    return streams.is_dir() and any(streams.iterdir())
