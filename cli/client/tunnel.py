"""A connection to a guest: a WebSocket to the platform, opened with the same headers as other calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cli.client.client import Client, Query, problem_of
from cli.client.errors import CliError, Refused, Unreachable

#: Seconds for the platform to open a connection.
PATIENCE = 30.0
#: The code with which a connection ends normally.
NORMAL = 1000


@contextmanager
def connected(api: Client, target: str, query: Query) -> Iterator[Any]:
    """The WebSocket at `target`. Raises Refused and Unreachable."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
    from websockets.sync.client import connect

    url, headers = api.socket(target, query)
    try:
        socket = connect(
            url,
            additional_headers=headers,
            subprotocols=["binary"],  # type: ignore[list-item]  # (a NewType of str)
            compression=None,
            proxy=None,
            max_size=None,
            open_timeout=PATIENCE,
            ssl=api.trust,
            address=api.address,  # no redirects: the input is for this platform only
        )
    except InvalidStatus as error:
        raise _refused(api, error.response.status_code, bytes(error.response.body or b"")) from error
    except (ValueError, InvalidURI) as error:  # a redirect
        raise _refused(api, 302, b"") from error
    except (OSError, TimeoutError, InvalidHandshake) as error:
        reason = getattr(error, "strerror", None) or str(error) or "the connection was lost"
        raise Unreachable(f"{api.url} does not answer: {reason}") from error
    with socket:
        yield socket


def close_reason(socket: Any) -> str:
    """Why the platform ended the connection. Raises Unreachable if the connection was lost."""
    code, reason = socket.close_code, socket.close_reason
    if code != NORMAL:
        raise Unreachable(reason or "the connection was lost")
    return reason or "the platform has ended the connection"


def _refused(api: Client, status: int, body: bytes) -> CliError:
    problem = problem_of(api.url, status, body)
    return Refused(problem) if status < 500 else Unreachable(str(Refused(problem)))
