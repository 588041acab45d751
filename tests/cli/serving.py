"""The platform in miniature on a free port; what it is asked and what it answers is held against the API."""

import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from gateway.http.problems import LOG_UNAVAILABLE, Problem, invalid_parameter
from tests import description
from tests.cli.fake import Answer, Platform


@contextmanager
def serving(platform: Platform) -> Iterator[Platform]:
    """Listen until the end of the block. Raises AssertionError there where a call was wrong."""

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            parts = urlsplit(self.path)
            self.where, query = parts.path, dict(parse_qsl(parts.query, keep_blank_values=True))
            key = self.headers["Idempotency-Key"]
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            platform.requests.append((self.command, parts.path, key, query))
            if self.command == "POST":
                platform.bodies.append(json.loads(body or b"{}"))
            fault = platform.faults.next.popleft() if platform.faults.next else ""
            if fault == "drop":
                return
            try:
                if fault == "503":  # whoever tries again need not wait
                    raise Problem(503, "log_unavailable", LOG_UNAVAILABLE, headers={"Retry-After": "0"})
                if fault == "500":
                    raise Problem(500, "internal_error", "it was being killed")
                platform.shown.append(self.headers["Authorization"])
                if (
                    parts.path != "/v1/login"
                    and platform.token
                    and self.headers["Authorization"] != f"Bearer {platform.token}"
                ):
                    raise Problem(401, "unauthorized", "no such token", headers={"WWW-Authenticate": "Bearer"})
                asked = description.wrong_parameters(self.command, parts.path, query, dict(self.headers))
                if asked:
                    platform.wrong.append(f"{self.command} {self.path}: no such {', '.join(asked)}")
                    if platform.described:
                        raise invalid_parameter(asked[0], "makes no sense here")
                platform.check_positions(query)
                if parts.path.endswith("/feed"):
                    self.stream(query)
                    return
                answer = platform.answer(self.command, parts.path, query, key, body)
            except Problem as problem:
                answer = Answer(
                    problem.document(str(uuid.uuid4())), len(platform.events), problem.status, problem.headers
                )
            if fault != "drop-answer":
                self.reply(answer)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do

        def reply(self, answer: Answer) -> None:
            kind = "application/json" if answer.status < 400 else "application/problem+json"
            content = json.dumps(answer.body).encode()
            headers = {**answer.headers, "Content-Type": kind, "Nebula-Position": str(answer.position)}
            self.begin(answer.status, headers | {"Content-Length": str(len(content))}, content)
            self.wfile.write(content)

        def begin(self, status: int, headers: Mapping[str, str], content: bytes = b"") -> None:
            sent = {**headers, "X-Request-Id": self.headers["X-Request-Id"] or str(uuid.uuid4())}
            if platform.described:
                platform.wrong += description.wrong_answer(self.command, self.where, status, sent, content)
            self.send_response(status)
            for name, value in sent.items():
                self.send_header(name, value)
            self.end_headers()

        def stream(self, query: Mapping[str, str]) -> None:
            platform.resumed.append(self.headers["Last-Event-ID"])
            begin = len(platform.events) if query.get("from") == "now" else query.get("after", 0)
            after = int(self.headers["Last-Event-ID"] or begin)
            self.begin(200, {"Content-Type": "text/event-stream", "Nebula-Position": str(after)})
            for chunk in platform.feed(after):
                self.wfile.write(chunk.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    platform.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield platform
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not platform.wrong, "\n".join(platform.wrong)
