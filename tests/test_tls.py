"""TLS on real sockets: the authority and its certificates, renewal while connections are open, pinned clients."""

import asyncio
import contextlib
import http.client
import socket
import ssl
import stat
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from runtime import listener
from runtime.bus import bus
from runtime.http.limits import Limits
from runtime.local.child import free_port
from runtime.settings import Common
from runtime.tls.authority import ensure_authority, ensure_server, fingerprint, is_fingerprint, names_of_this_host
from runtime.tls.contexts import BadCertificate, ServerTls, pinned

NAMES = ["127.0.0.1", "localhost"]


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_authority_is_made_once_and_its_keys_are_private(tmp_path: Path) -> None:
    first = ensure_authority(tmp_path / "tls")
    assert ensure_authority(tmp_path / "tls").certificate == first.certificate
    assert stat.S_IMODE((tmp_path / "tls" / "ca.key").stat().st_mode) == 0o600
    assert ensure_server(tmp_path / "tls", first, NAMES)
    assert stat.S_IMODE((tmp_path / "tls" / "server.pem").stat().st_mode) == 0o600
    assert is_fingerprint(fingerprint(first.pem))
    assert first.certificate.not_valid_after_utc - datetime.now(UTC) > timedelta(days=3600)


def test_a_key_of_another_authority_is_refused(tmp_path: Path) -> None:
    ensure_authority(tmp_path / "a")
    ensure_authority(tmp_path / "b")
    (tmp_path / "a" / "ca.key").write_bytes((tmp_path / "b" / "ca.key").read_bytes())
    with pytest.raises(BadCertificate, match="not the key"):
        ensure_authority(tmp_path / "a")


def test_a_certificate_is_renewed_when_it_has_to_be(tmp_path: Path) -> None:
    authority = ensure_authority(tmp_path)
    assert ensure_server(tmp_path, authority, NAMES)
    assert not ensure_server(tmp_path, authority, reversed(NAMES))
    later = datetime.now(UTC) + timedelta(days=19)
    assert not ensure_server(tmp_path, authority, NAMES, later)
    assert ensure_server(tmp_path, authority, NAMES, later + timedelta(days=2))
    assert ensure_server(tmp_path, authority, [*NAMES, "other"])
    (tmp_path / "server.pem").write_text("nonsense")
    assert ensure_server(tmp_path, authority, NAMES)
    assert ensure_server(tmp_path, ensure_authority(tmp_path / "new"), NAMES)


def test_the_names_of_a_listener() -> None:
    assert {"127.0.0.1", "localhost", "10.1.2.3"} <= set(names_of_this_host("10.1.2.3"))
    everywhere = names_of_this_host("0.0.0.0")
    assert "127.0.0.1" in everywhere and "0.0.0.0" not in everywhere


async def feed(_: Request) -> Response:
    async def ticks() -> AsyncIterator[bytes]:
        while True:
            yield b"tick\n"
            await asyncio.sleep(0.02)

    return StreamingResponse(ticks())


APP = Starlette(
    routes=[
        Route("/", lambda request: PlainTextResponse(request.url.scheme)),
        Route("/echo", lambda _: PlainTextResponse("x" * 300_000)),
        Route("/feed", feed),
    ]
)


class Served:
    """An application over TLS in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = ensure_authority(folder)
        ensure_server(folder, self.authority, NAMES)
        self.tls = ServerTls(folder / "server.pem")
        self.port = free_port()

    @contextlib.asynccontextmanager
    async def running(self, limits: Limits | None = None) -> AsyncIterator["Served"]:
        stop = asyncio.Event()
        sock = listener.bind("127.0.0.1", self.port)
        serving = asyncio.create_task(listener.serve(APP, sock, stop, limits, tls=self.tls.context))
        try:
            yield self
        finally:
            stop.set()
            await serving

    def connect(self, context: ssl.SSLContext | None = None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=10, context=context or pinned(self.authority.pem)
        )

    def get(self, path: str = "/", context: ssl.SSLContext | None = None) -> str:
        connection = self.connect(context)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def serial(self) -> int:
        """The serial number of the certificate that a new connection gets."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            pinned(self.authority.pem).wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"").serial_number


async def test_calls_are_answered_over_tls_only(tmp_path: Path) -> None:
    async with Served(tmp_path).running() as served:
        assert await asyncio.to_thread(served.get) == "https"
        assert len(await asyncio.to_thread(served.get, "/echo")) == 300_000

        def plainly() -> bytes:
            with socket.create_connection(("127.0.0.1", served.port), timeout=10) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return plain.recv(100)

        assert b"http" not in (await asyncio.to_thread(plainly)).lower()


async def test_a_client_refuses_another_authority_and_another_name(tmp_path: Path) -> None:
    other = ensure_authority(tmp_path / "other")
    async with Served(tmp_path / "own").running() as served:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(served.get, "/", pinned(other.pem))
        ensure_server(served.folder, served.authority, ["elsewhere"])
        assert served.tls.refresh()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(served.get)


async def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    async with Served(tmp_path).running() as served:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(served.get, "/", old)


async def test_a_certificate_is_replaced_while_a_feed_is_open(tmp_path: Path) -> None:
    async with Served(tmp_path).running() as served:
        ticks, stop = [0], threading.Event()

        def follow() -> None:
            connection = served.connect()
            connection.request("GET", "/feed")
            response = connection.getresponse()
            while not stop.is_set():
                assert response.readline() == b"tick\n"
                ticks[0] += 1
            connection.close()

        following = asyncio.create_task(asyncio.to_thread(follow))
        before = await asyncio.to_thread(served.serial)
        ensure_server(served.folder, served.authority, [*NAMES, "new"])
        assert served.tls.refresh() and not served.tls.refresh()
        assert await asyncio.to_thread(served.serial) != before
        seen = ticks[0]
        while ticks[0] < seen + 5 and not following.done():
            await asyncio.sleep(0.02)
        stop.set()
        await following


async def test_a_broken_certificate_does_not_replace_a_good_one(tmp_path: Path) -> None:
    async with Served(tmp_path).running() as served:
        before = await asyncio.to_thread(served.serial)
        stranger = ensure_authority(tmp_path / "stranger")
        ensure_server(tmp_path / "stranger", stranger, NAMES)
        key = (served.folder / "server.pem").read_text().split("-----BEGIN CERTIFICATE")[0]
        rest = (tmp_path / "stranger" / "server.pem").read_text().partition("-----BEGIN CERTIFICATE")
        (served.folder / "server.pem").write_text(key + rest[1] + rest[2])
        with pytest.raises(BadCertificate):
            served.tls.refresh()
        assert await asyncio.to_thread(served.serial) == before


async def test_a_handshake_that_is_not_finished_is_ended(tmp_path: Path) -> None:
    async with Served(tmp_path).running(Limits(head_seconds=0.3)) as served:

        def silent() -> bytes:
            with socket.create_connection(("127.0.0.1", served.port), timeout=20) as plain:
                return plain.recv(1)

        assert await asyncio.to_thread(silent) == b""


async def test_the_bus_refuses_a_server_without_tls(tmp_path: Path) -> None:
    """An attacker in between could offer none, and would be sent our credentials in clear text."""
    ensure_authority(tmp_path)
    heard = bytearray()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.11.0","max_payload":1000,"headers":true}\r\n')
        with contextlib.suppress(OSError):
            heard.extend(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Common(
        nats_url=f"nats://127.0.0.1:{port}", nats_ca=tmp_path / "ca.pem", nats_user="u", nats_password="p"
    )
    connection = bus.Connection(settings, "test")
    with pytest.raises(Exception, match="TLS"):
        await connection.open()
    await connection.close()
    assert heard == b""
    server.close()
