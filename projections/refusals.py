"""Why Postgres does not let us in, by the code of its refusal: the words are in the server's own language.

libpq hands on no code for a connection that fails. But it can be told to say the code in place of the words, before the
server answers. So the connection that failed is tried once more, for that alone.
"""

import ctypes
import re
import select
import sys
import time
from functools import cache
from typing import Any

from psycopg import pq

#: Says a severity and SQLSTATE of an error, and nothing else (PQERRORS_SQLSTATE).
CODES_ONLY = 3
SECONDS = 3.0
#: What waiting does not mend: we are nobody there (class 28), there is no such database, or it is closed to us.
REFUSALS = re.compile(r"28...|3D000|42501")
UNKNOWN = "28P01"

_CODE = re.compile(r":\s+([0-9A-Z]{5})\s*$", re.MULTILINE)


def is_refusal(code: str | None) -> bool:
    """Whether that is an error that lasts until somebody changes a setting here, or a role there."""
    return code is not None and REFUSALS.fullmatch(code) is not None


def code_of(conninfo: str) -> str | None:
    """The SQLSTATE with which the server refuses a connection. It blocks, for SECONDS at most.

    None where it lets us in, does not answer, or breaks off without a code.
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
    """How the attempt ends; None when it takes too long."""
    deadline = time.monotonic() + SECONDS
    status = pq.PollingStatus.WRITING
    while status in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
        if attempt.status == pq.ConnStatus.BAD:
            return pq.PollingStatus.FAILED
        left = deadline - time.monotonic()
        reads, writes = ([attempt.socket], []) if status is pq.PollingStatus.READING else ([], [attempt.socket])
        if left <= 0 or not any(select.select(reads, writes, [], left)):
            return None
        status = pq.PollingStatus(attempt.connect_poll())
    return status


@cache
def _libpq() -> ctypes.CDLL:
    """The libpq that psycopg works with: what its module is linked with is found through that."""
    module = sys.modules[pq.PGconn.__module__]
    return ctypes.CDLL(module.__file__)
