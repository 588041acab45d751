"""What goes wrong for good. Everything else is tried again."""

from runtime.images.disk_room import is_full
from runtime.images.download import Verdict


class Permanent(Verdict):
    """A VM cannot be made as wanted, and trying again will not help until its document changes.

    `code` is stable and meant for programs, `detail` is for the person who asked.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Temporary(Exception):
    """It did not work now; it may later."""


class Superseded(Exception):
    """The document that a step was planned from is no longer the newest."""


def of_os_error(error: OSError) -> Exception:
    """A full disk stays full until somebody acts; other errors of the operating system may pass."""
    if is_full(error):
        return Permanent("disk_full", f"the node's disk is full: {error.strerror}")
    return Temporary(str(error))
