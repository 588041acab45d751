"""Runs commands of nft for its parent, with libnftables: `python nft_helper.py`, which needs nothing but Python.

A run of the program `nft` takes several milliseconds to begin; this process has begun already. It is a process of its
own, because libnftables may end the process that uses it, and cannot be interrupted. It reads a request from stdin (the
number of bytes, then the commands, which take effect together), and writes the answer to stdout: whether they
succeeded, the number of bytes, and what `nft` would have printed. It ends with its stdin. Without libnftables it
writes nothing, and ends with status NO_LIBRARY.
"""

import ctypes
import struct
import sys
from typing import BinaryIO

#: The version of the interface that all releases of nftables since 0.9 have.
LIBRARY = "libnftables.so.1"
#: The status if there is no such library.
NO_LIBRARY = 3
REQUEST = struct.Struct("!I")
ANSWER = struct.Struct("!?I")


class Nftables:
    """libnftables. Raises OSError if it is not installed, AttributeError if it is another one."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.nft_ctx_new.restype = ctypes.c_void_p
        self._library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        self._library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
            getattr(self._library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(self._library, name).argtypes = [ctypes.c_void_p]
            getattr(self._library, name).restype = ctypes.c_char_p

    def run(self, commands: bytes) -> tuple[bool, bytes]:
        """Whether the commands succeeded, and their output. Each call has a context of its own, which knows nothing of
        earlier ones: other programs change tables too.
        """
        context = self._library.nft_ctx_new(0)
        if context is None:
            return False, b"libnftables cannot begin"
        try:
            self._library.nft_ctx_buffer_output(context)
            self._library.nft_ctx_buffer_error(context)
            status = self._library.nft_run_cmd_from_buffer(context, commands)
            printed = self._library.nft_ctx_get_output_buffer(context) or b""
            return status == 0, printed + (self._library.nft_ctx_get_error_buffer(context) or b"")
        finally:
            self._library.nft_ctx_free(context)


def main() -> int:
    try:
        nftables = Nftables()
    except (OSError, AttributeError):
        return NO_LIBRARY
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while (commands := read(requests)) is not None:
        succeeded, printed = nftables.run(commands)
        answers.write(ANSWER.pack(succeeded, len(printed)) + printed)
        answers.flush()
    return 0


def read(requests: BinaryIO) -> bytes | None:
    """The next commands; None at the end."""
    head = requests.read(REQUEST.size)
    if len(head) < REQUEST.size:
        return None
    (size,) = REQUEST.unpack(head)
    commands = requests.read(size)
    return commands if len(commands) == size else None


if __name__ == "__main__":
    sys.exit(main())
