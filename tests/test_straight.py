"""Our own servers are asked straight: a proxy that the environment names is for others, and hears of no secret."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from runtime.local.full_disk import write_error

WRITE_ERROR = b'{"status": "error", "errors": [{"type": "STREAM", "error": "JetStream stream write error: no room"}]}'


class Says(BaseHTTPRequestHandler):
    """Answers in these words, byte by byte."""

    words = b""

    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(self.words)


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Says) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


def answer(status: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.0 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_log_that_cannot_be_written_is_found(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Says, "words", answer("503 No", WRITE_ERROR))
    said = write_error(server.server_port)
    assert said is not None and "write error" in said
    for words in (b"", b"nonsense\r\n\r\n", answer("503 No", b"x")[:-1], answer("503 No", b"[]"), answer("200 OK")):
        monkeypatch.setattr(Says, "words", words)
        assert write_error(server.server_port) is None
