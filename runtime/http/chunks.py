"""Decodes a body that is sent in chunks. Extensions and trailers are checked, limited, and ignored."""

import re

from runtime.http.head import too_large
from runtime.http.limits import Limits
from runtime.http.refusal import Refused, malformed

#: Maximum bytes of one line (the size of a chunk with its extensions, or a trailer), and of all trailers.
MOST_LINE = 256
MOST_TRAILERS = 4096

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class Chunks:
    """The decoder of one body. `done`: its last byte was taken."""

    def __init__(self, limits: Limits) -> None:
        self.done = False
        self._limits = limits
        self._left = 0
        self._after_data = False
        self._in_trailers = False
        self._chunks = 0
        self._total = 0
        self._trailers = 0

    def take(self, buffer: bytearray) -> bytes:
        """Remove the complete parts from the buffer, and return their bytes of the body. Raises Refused."""
        out = []
        at = 0
        while not self.done:
            if self._left:
                piece = bytes(buffer[at : at + self._left])
                if not piece:
                    break
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._after_data = self._left == 0
                continue
            end = buffer.find(b"\r\n", at, at + MOST_LINE + 2)
            if end < 0:
                if len(buffer) - at > MOST_LINE or buffer.find(b"\n", at) >= 0:
                    raise malformed(f"a chunk's line must end in CR LF, after at most {MOST_LINE} bytes")
                break
            self._line(bytes(buffer[at:end]))
            at = end + 2
        del buffer[:at]
        return b"".join(out)

    def _line(self, line: bytes) -> None:
        if self._after_data:
            if line:
                raise malformed("a chunk is longer than its size")
            self._after_data = False
        elif self._in_trailers:
            self._trailer(line)
        else:
            self._size(line)

    def _size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise malformed("a chunk must begin with its size in hexadecimal digits")
        self._left = int(found[1], 16)
        self._total += self._left
        self._chunks += 1
        self._in_trailers = self._left == 0
        if self._total > self._limits.body:
            raise too_large(self._limits)
        if self._chunks > self._limits.chunks:
            raise Refused(413, "body_too_large", f"a body may come in at most {self._limits.chunks} chunks")

    def _trailer(self, line: bytes) -> None:
        self._trailers += len(line)
        if not line:
            self.done = True
        elif self._trailers > MOST_TRAILERS or not _TRAILER.fullmatch(line):
            raise malformed(f"trailers must be headers, with at most {MOST_TRAILERS} bytes in total")
