"""What answers is no platform, or one that has gone mad: no traceback, no escape, an end with a status."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.cli.conftest import Nebula

VM = "00000000-0000-4000-8000-000000000000"
OK, JSON = b"HTTP/1.0 200 OK\r\n", b"Content-Type: application/json\r\n\r\n"
BAD = b"HTTP/1.0 409 Conflict\r\nContent-Type: application/problem+json\r\n\r\n"
ANSWERS = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a page": OK + b"\r\n<html>",
    "no content": OK + b"\r\n",
    "a list": OK + JSON + b"[]",
    "null": OK + JSON + b"null",
    "an empty object": OK + JSON + b"{}",
    "items that are none": OK + JSON + b'{"items": 5, "next_page_token": null}',
    "an item that is none": OK + JSON + b'{"items": [5], "next_page_token": null, "id": [], "events": {}}',
    "other items": OK + JSON + b'{"items": [{"name": "x", "created_at": 5}], "next_page_token": null}',
    "not UTF-8": OK + JSON + b'{"items": "\xff"}',
    "too deep": OK + JSON + b"[" * 100_000,
    "elsewhere": b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
    "not changed": b"HTTP/1.0 304 Not Modified\r\n\r\n",
    "a problem that is none": BAD + b"[]",
    "a problem in pieces": BAD + b'{"status": "x", "errors": [5, {"field": 1}], "detail": {"a": "\\u001b[31m"}}',
    "errors that are none": BAD + b'{"errors": 5, "code": ["\\u009b31m"]}',
    "a problem that is no JSON": BAD + b"<html>",
    "later": b"HTTP/1.0 503 No\r\nRetry-After: \xb2\r\n\r\n",
    "much later": b"HTTP/1.0 503 No\r\nRetry-After: 0000000000000000\r\n\r\n",
    "an event that is none": OK + b"\r\nid: x\ndata: [1]\n\n",
    "an event that is no text": OK + b"\r\nid: 1\ndata: \xff\xfe\n\n",
}
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("vm", "list"),
    ("vm", "create", "x", "--image", "i"),
    ("vm", "console", VM),
    ("node", "list"),
    ("operation", "wait", VM),
    ("feed",),
    ("replay", "vm", VM),
)


@contextmanager
def answering(what: bytes) -> Iterator[str]:
    """A server that says the same to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(what)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("what", ANSWERS)
def test_nonsense_is_told_in_words(nebula: Nebula, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr("cli.client.client.time.sleep", quick)
    with answering(ANSWERS[what]) as url:
        for command in COMMANDS:
            ran = nebula(*command, "--url", url, "--token", "t")
            assert ran.status in (0, 1, 3), (command, ran)
            assert "Traceback" not in ran.err
            assert not {"\x1b", "\x9b"} & set(ran.out + ran.err)


def quick(_: float) -> None:
    """Sleeps not at all."""


def test_nothing_is_sent_on_to_where_an_answer_leads(nebula: Nebula) -> None:
    heard: list[str] = []
    with answering(b"") as other, listening(heard) as there:
        for status in (b"301", b"302", b"307", b"308"):
            elsewhere = b"HTTP/1.1 " + status + b" x\r\nLocation: " + there.encode() + b"/v1/\r\n\r\n"
            with answering(elsewhere) as url:
                for command in (("vm", "list"), ("vm", "console", VM), ("vm", "vnc", VM), ("feed",)):
                    ran = nebula(*command, "--url", url, "--token", "t")
                    assert ran.status in (1, 3) and "leads elsewhere" in ran.err, ran
        assert other and not heard


@contextmanager
def listening(heard: list[str]) -> Iterator[str]:
    """A server that notes who comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        noting: Callable[[], None] = lambda: note(listener, heard)  # noqa: E731
        threading.Thread(target=noting, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def note(listener: socket.socket, heard: list[str]) -> None:
    try:
        listener.accept()
    except OSError:
        return
    heard.append("somebody")
