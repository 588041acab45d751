"""The errors of a step of the plan. Only a permanent one stops the retries."""

from runtime.images.disk_room import is_full
from runtime.images.download import Verdict


class Permanent(Verdict):
    """A VM cannot reach its desired state. A retry does not help until its document changes.

    `code` is stable, for programs; `detail` is for people.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Temporary(Exception):
    """The step failed now; a retry may succeed."""


class Superseded(Exception):
    """A newer document has replaced the one that the step was planned from."""


def of_os_error(error: OSError) -> Exception:
    """Permanent for a full disk, which stays full until somebody acts; Temporary for all other errors."""
    if is_full(error):
        return Permanent("disk_full", f"the node's disk is full: {error.strerror}")
    return Temporary(str(error))
