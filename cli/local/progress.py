"""What `nebula up` prints while it starts and runs."""

import contextlib
import time

from cli.client.output import duration, emit
from runtime.text.masking import masked


def say(text: str) -> None:
    """Print a line. If it cannot be written (full disk, closed pipe), the platform keeps running."""
    with contextlib.suppress(OSError):
        emit(masked(text))


class Progress:
    """Prints one aligned line for each part that became ready, with the seconds since the previous line."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str, text: str) -> None:
        now = time.monotonic()
        say(f"{what:<12} {text} ({duration(now - self._last)})")
        self._last = now
