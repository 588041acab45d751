"""Why Postgres refuses a connection, as an SQLSTATE code. The text of a refusal is in the server's own language.

For a failed connection, libpq gives no code. But it can be set to give the code in place of the text before the server
answers. So the failed connection is tried once more, only for the code.
"""

import ctypes
import re
import select
import sys
import time
from functools import cache
from typing import Any

from psycopg import pq

#: An error message is only its severity and SQLSTATE (PQERRORS_SQLSTATE).
CODES_ONLY = 3
SECONDS = 3.0
#: Refusals that waiting does not solve: invalid role or password (class 28), no such database, no right to connect.
REFUSALS = re.compile(r"28...|3D000|42501")
UNKNOWN = "28P01"

_CODE = re.compile(r":\s+([0-9A-Z]{5})\s*$", re.MULTILINE)


def is_refusal(code: str | None) -> bool:
    """Whether the error lasts until somebody changes a setting of this process or a role in Postgres."""
    return code is not None and REFUSALS.fullmatch(code) is not None


def code_of(conninfo: str) -> str | None:
    """The SQLSTATE with which the server refuses a connection. It blocks, for SECONDS at most.

    None if the server accepts the connection, does not answer, or ends it without a code.
    """
    attempt: Any = pq.PGconn.connect_start(conninfo.encode())
    try:
        _libpq().PQsetErrorVerbosity(ctypes.c_void_p(attempt.pgconn_ptr), CODES_ONLY)
        if _ended(attempt) is not pq.PollingStatus.FAILED:
            return None
        if attempt.needs_password:  # libpq gave up by itself, and knows no code for that
            return UNKNOWN
        codes = _CODE.findall(attempt.error_message.decode(errors="replace"))
        return codes[-1] if codes else None
    finally:
        attempt.finish()


def _ended(attempt: Any) -> pq.PollingStatus | None:
    """The final status of the attempt; None if it takes too long."""
    deadline = time.monotonic() + SECONDS
    status = pq.PollingStatus.WRITING
    while status in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
        if attempt.status == pq.ConnStatus.BAD:
            return pq.PollingStatus.FAILED
        remaining = deadline - time.monotonic()
        reads, writes = ([attempt.socket], []) if status is pq.PollingStatus.READING else ([], [attempt.socket])
        if remaining <= 0 or not any(select.select(reads, writes, [], remaining)):
            return None
        status = pq.PollingStatus(attempt.connect_poll())
    return status


@cache
def _libpq() -> ctypes.CDLL:
    """The libpq that psycopg uses: the symbols of a library are found through the module that is linked with it."""
    module = sys.modules[pq.PGconn.__module__]
    return ctypes.CDLL(module.__file__)
