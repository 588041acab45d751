"""A port on loopback that leads to a guest: each connection to it is one WebSocket to the platform."""

import contextlib
import socket
import threading
from typing import Any

from cli.client.client import Client
from cli.client.errors import CliError, Usage
from cli.client.session import note
from cli.client.tunnel import connected

READ = 64 * 1024


def listening(port: int) -> socket.socket:
    """A listener on loopback. Raises Usage if the port cannot be used."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise Usage(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from error


def forward(listener: socket.socket, api: Client, target: str) -> None:
    """Serve all connections in parallel, until interrupted."""
    while True:
        viewer, _ = listener.accept()
        threading.Thread(target=serve, args=(viewer, api, target), daemon=True).start()


def serve(viewer: socket.socket, api: Client, target: str) -> None:
    """One connection, to its end."""
    with viewer:
        try:
            with connected(api, target, {}) as tunnel:
                back = threading.Thread(target=answers, args=(tunnel, viewer), daemon=True)
                back.start()
                with contextlib.suppress(Exception):  # one end has closed, so close the other
                    while data := viewer.recv(READ):
                        tunnel.send(data)
        except CliError as error:
            note(str(error))


def answers(tunnel: Any, viewer: socket.socket) -> None:
    with contextlib.suppress(Exception):
        for message in tunnel:
            viewer.sendall(message)
    with contextlib.suppress(OSError):
        viewer.shutdown(socket.SHUT_RDWR)
