"""The TCP connection to a NATS server."""

from collections.abc import Callable, Iterable

from nats.aio.transport import TcpTransport


class TcpStream(TcpTransport):
    """nats-py's transport. A write to a connection that has just broken raises ConnectionResetError.

    uvloop raises RuntimeError for it, which nats-py takes for the end of the event loop: its writing task would end
    without a reconnect, each later publish would raise, and a reconnect that is in work would stop for ever. After an
    OSError, nats-py connects again, and writes then what waits in its buffer.
    """

    def __init__(self, made: TcpTransport, heard: Callable[[], None]) -> None:
        """Take over the connection of a transport that nats-py has made. `heard`: called when bytes have been read."""
        super().__init__()  # type: ignore[no-untyped-call]
        vars(self).update(vars(made))
        self._heard = heard

    async def read(self, buffer_size: int) -> bytes:
        data: bytes = await super().read(buffer_size)
        if data:
            self._heard()
        return data

    def write(self, payload: bytes) -> None:
        try:
            super().write(payload)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise ConnectionResetError(str(error)) from error

    def writelines(self, payload: Iterable[bytes]) -> None:
        try:
            super().writelines(payload)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise ConnectionResetError(str(error)) from error
