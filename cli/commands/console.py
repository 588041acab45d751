"""`nebula vm console`, `console-log` and `vnc`: a VM's serial console, the log of that console, and its display."""

import codecs
import re
import sys
from typing import Annotated, Self

import typer

from cli.client import output
from cli.client.client import path
from cli.client.command import query
from cli.client.errors import Refused
from cli.client.forward import forward, listening
from cli.client.session import Session, note
from cli.client.terminal import Terminal
from cli.client.tunnel import connected
from cli.commands.vm import Name, find
from runtime.text.plain import plain

#: Seconds that the platform is asked to wait for more.
WAIT = 20.0

#: Sequences that colour text on a terminal; the one that ends colours; other control characters.
_COLOUR, _COLOURLESS = re.compile(r"(\x1b\[[0-9;]*m)"), b"\x1b[0m"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def register(app: typer.Typer) -> None:
    query(app, "console")(console)
    query(app, "console-log")(console_log)
    query(app, "vnc")(vnc)


def console(
    session: Session,
    vm: Name,
    force: Annotated[bool, typer.Option("--force", help="Take it over from the user who is connected.")] = False,
) -> None:
    """Connect to a running VM's serial console. Ctrl-] ends the session; the VM keeps running."""
    target = path("projects", session.project, "vms", find(session, vm), "console")
    with connected(session.api, target, {"force": "true"} if force else {}) as socket:
        note(f"connected to {vm}; Ctrl-] ends the session")
        why = Terminal(socket).run()
    note(why)


def console_log(
    session: Session,
    vm: Name,
    bytes: Annotated[int, typer.Option(min=1, max=8 * 1024 * 1024, help="How many bytes of its end.")] = 64 * 1024,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Also print new output, until Ctrl-C.")] = False,
) -> None:
    """Print what a VM wrote to its serial console, running or not. A terminal gets only text and colours."""
    target = path("projects", session.project, "vms", find(session, vm), "console-log")
    data, headers = session.api.raw(target, {"bytes": bytes})
    with Printer() as show:
        show(data)
        while follow:
            query = {"cursor": headers["nebula-cursor"], "wait": WAIT, "bytes": 1024 * 1024}
            try:
                data, headers = session.api.raw(target, query, wait=WAIT)
            except Refused as refusal:
                if refusal.status in (404, 410):  # the log was deleted with its VM
                    return
                raise
            show(data)


def vnc(
    session: Session,
    vm: Name,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; any free one for 0.")] = 0,
) -> None:
    """Open a port for VNC viewers on this machine, to a running VM's display, until Ctrl-C.

    Meanwhile every user of this machine can connect to the port.
    """
    target = path("projects", session.project, "vms", find(session, vm), "vnc")
    with connected(session.api, target, {}):  # so that an error is shown now, not at the first viewer
        pass
    with listening(port) as listener:
        host, chosen = listener.getsockname()
        output.emit(f"{host}:{chosen}")
        note(f"the display of {vm}, for a VNC viewer: vnc://{host}:{chosen}; Ctrl-C ends this")
        forward(listener, session.api, target)


class Printer:
    """Prints pieces of output: unchanged, or, on a terminal, only text and colours. Colours are reset at the end."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if sys.stdout.isatty():
            sys.stdout.buffer.write(_COLOURLESS)
            sys.stdout.buffer.flush()

    def __call__(self, data: bytes) -> None:
        shown = harmless(self._decoder.decode(data)).encode() if sys.stdout.isatty() else data
        sys.stdout.buffer.write(shown)
        sys.stdout.buffer.flush()


def harmless(text: str) -> str:
    """The text and its colours only: other sequences could type for the user, or reverse the text."""
    pieces = enumerate(_COLOUR.split(text))
    return "".join(piece if number % 2 else plain(_CONTROL.sub("", piece), keep="\t\n\r") for number, piece in pieces)
