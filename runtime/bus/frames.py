"""Messages of a session that only its two ends can make and read: AES-256-GCM, with a counter as nonce.

    counter (8 bytes), head of the message, its data (sealed), a tag of 16 bytes, which covers all of them

Each direction has a key of its own, for this session only (`runtime/answer_keys.py`), so no nonce is used twice. A
message counts only if it is later than the one before, so none can be repeated. The head is not copied into what is
sealed: for the largest messages, each copy costs more than the cipher.
"""

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_COUNTER = struct.Struct(">Q")
_PADDING = b"\0\0\0\0"
"""A nonce has 12 bytes."""


class Frames:
    """The messages of one end. `sending`, `receiving`: the keys of the two directions. `head`: bytes of a head."""

    def __init__(self, sending: bytes, receiving: bytes, head: int) -> None:
        self._sending = AESGCM(sending)
        self._receiving = AESGCM(receiving)
        self._head = _COUNTER.size + head
        self._sent = self._received = 0

    def seal(self, head: bytes, data: bytes) -> bytes:
        self._sent += 1
        counter = _COUNTER.pack(self._sent)
        return counter + head + self._sending.encrypt(_PADDING + counter, data, head)

    def open(self, message: bytes) -> tuple[bytes, bytes] | None:
        """The head and the data; None if the other end did not make the message, or it is a repeat."""
        if len(message) < self._head or (number := _COUNTER.unpack_from(message)[0]) <= self._received:
            return None
        counter, head = message[: _COUNTER.size], message[_COUNTER.size : self._head]
        try:
            data = self._receiving.decrypt(_PADDING + counter, memoryview(message)[self._head :], head)
        except InvalidTag:
            return None
        self._received = number
        return head, data
