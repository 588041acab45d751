"""Moves the streams of another account to the account CONTROL: those of a server without accounts, as earlier versions
started it, or those of the account that CONTROL was before somebody removed the keys of the bus.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from runtime.files.files import sync
from runtime.local.child import ServerError

#: nats-server's name for the account of a server that has none.
GLOBAL = "$G"
#: The public key of an account, which is the name of its folder.
_ACCOUNT = re.compile("A[A-Z2-7]{55}")


def adopt(store: Path, account: str) -> bool:
    """Rename the folder of the streams in one step. Call it while the server is stopped. Returns whether it was done.

    Raises ServerError if several folders have streams, OSError.
    """
    now = store / "jetstream" / account
    others = [folder for folder in _accounts(store) if folder != now]
    if not others:
        return False
    found = [*others, now] if _has_streams(now) else others
    if len(found) > 1:
        names = " and ".join(map(str, found))
        raise ServerError(
            f"{names} have streams: an earlier version, or one with other keys of the bus, has run on this home; "
            "move the folders away whose streams are not wanted"
        )
    if now.exists():
        spare = now.with_name(f"{now.name}.empty")
        now.rename(spare)
    found[0].rename(now)
    sync(now.parent)
    return True


def in_account(store: Path) -> bool:
    """Whether streams are in an account, so that a server without accounts would show an empty log."""
    return any(folder.name != GLOBAL for folder in _accounts(store))


def _accounts(store: Path) -> Iterator[Path]:
    """The folders of accounts that have streams."""
    for folder in sorted((store / "jetstream").glob("*")):
        if (folder.name == GLOBAL or _ACCOUNT.fullmatch(folder.name)) and _has_streams(folder):
            yield folder


def _has_streams(folder: Path) -> bool:
    streams = folder / "streams"
    return streams.is_dir() and any(streams.iterdir())
