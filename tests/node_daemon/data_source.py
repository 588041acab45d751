"""A data source for the tests of the node daemon: documents by path, on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class DataSource:
    """Answers `/<secret>/<name>` with what `says` of it; 404 for a secret that is not among `secrets`."""

    secrets: set[str] = field(default_factory=lambda: {"one"})
    says: dict[str, bytes] = field(default_factory=dict)
    away: bool = False
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def url(self, secret: str = "one") -> str:
        return f"http://127.0.0.1:{self.port}/{secret}/"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        self.asked.append(path)
        _, secret, name = path.split("/")
        status = "503 Service Unavailable" if self.away else "200 OK" if secret in self.secrets else "404 Not Found"
        body = self.says.get(name, b"") if status == "200 OK" else b""
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def a_data_source(**says: bytes) -> AsyncIterator[DataSource]:
    source = DataSource(says={name.replace("_", "-"): body for name, body in says.items()})
    listener = await asyncio.start_server(source.answer, "127.0.0.1", 0)
    source.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield source
