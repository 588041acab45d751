"""Refusals that a listener sends by itself, before it calls an application."""

import json
import uuid
from http import HTTPStatus


class Refused(Exception):
    """A request is refused. The connection is closed after the answer."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail

    def answer(self) -> bytes:
        """The complete HTTP answer with a problem document (RFC 9457)."""
        request_id = str(uuid.uuid4())
        document = {
            "type": f"urn:nebula:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        body = json.dumps(document).encode()
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "content-type: application/problem+json",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id}",
            "connection: close",
            *(["retry-after: 1"] if self.status == 503 else []),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def malformed(detail: str) -> Refused:
    return Refused(400, "malformed_request", detail)
