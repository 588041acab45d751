"""Connects a terminal to a console: sends every key, shows everything that the console sends, until Ctrl-]."""

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cli.client.tunnel import close_reason

#: Ctrl-].
ESCAPE = b"\x1d"
READ = 4096
#: Signals that would end this program without restoring the terminal.
DEADLY = (signal.SIGTERM, signal.SIGHUP)


class Terminal:
    """Joins standard input and output to a WebSocket, whatever they are: a terminal, a pipe, a file."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._over, self._ended = os.pipe()

    def run(self) -> str:
        """Run until Ctrl-], the end of the input or the end of the console; says why it ended. Raises Unreachable."""
        shown = threading.Thread(target=self._show, daemon=True)
        with raw(sys.stdin.fileno()):
            shown.start()
            reason = self._type()
        if reason is None:
            return close_reason(self._socket)
        self._socket.close()
        return reason

    def _type(self) -> str | None:
        """Send the typed keys. Returns why the user ended the session; None if the other end did."""
        keys = sys.stdin.fileno()
        while True:
            ready, _, _ = select.select([keys, self._over], [], [])
            if self._over in ready:
                return None
            typed = os.read(keys, READ)
            before, escape, _ = typed.partition(ESCAPE)
            with contextlib.suppress(Exception):  # closed meanwhile: the other thread notices it
                if before:
                    self._socket.send(before)
            if escape:
                return "session ended"
            if not typed:
                return "end of input"

    def _show(self) -> None:
        screen = sys.stdout.fileno()
        try:
            for message in self._socket:
                data = message.encode() if isinstance(message, str) else message
                while data:
                    data = data[os.write(screen, data) :]
        except Exception:  # noqa: S110  (the socket has the reason)
            pass
        finally:
            os.write(self._ended, b".")


@contextmanager
def raw(keys: int) -> Iterator[None]:
    """Send every key unchanged, Ctrl-C too. The terminal is restored afterwards, except after SIGKILL."""
    if not os.isatty(keys):
        yield
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = termios.tcgetattr(keys)
    handlers = {number: signal.signal(number, leave) for number in DEADLY}
    try:
        tty.setraw(keys)
        yield
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.stderr.write("\n")
