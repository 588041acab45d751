"""What a runner does at the moment, for others in its process that give way to it."""

import asyncio
import time


class Activity:
    """`following`, `ended`: whether the runner is the writer of its read models and has caught up with the log."""

    def __init__(self) -> None:
        self.following, self.ended = asyncio.Event(), asyncio.Event()
        self.ended.set()
        #: whether it has messages to apply
        self.busy = False
        self._last = time.monotonic()

    def follows(self) -> None:
        """It is the writer, and as new as the log was when it began."""
        self.following.set()
        self.ended.clear()

    def ends(self) -> None:
        """It is the writer no longer."""
        self.following.clear()
        self.ended.set()
        self.rests()

    def works(self) -> None:
        """It has messages."""
        self.busy = True

    def rests(self) -> None:
        """It has applied them."""
        self.busy = False
        self._last = time.monotonic()

    @property
    def quiet(self) -> float:
        """Seconds since it had messages; 0 while it has some."""
        return 0.0 if self.busy else time.monotonic() - self._last
