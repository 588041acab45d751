"""Servers of https are trusted by the system's own store, private CAs in it among them."""

import asyncio
import http.server
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli.client.client import Client
from cli.client.errors import Unreachable
from node_daemon.failure import Temporary
from node_daemon.storage import seed_disk
from runtime import trust
from runtime.images import download
from tests.image_server import LOOPBACK

BODY = b"an image" * 1000


def certificate(subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate for 127.0.0.1, or of a CA where it signs itself."""
    now = datetime.now(UTC)
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    made = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(by, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"ok": true}' if self.path.startswith("/v1") else BODY
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this system keeps whom it trusts; nobody yet. SSL_CERT_* are not set."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "bundle.crt"
    monkeypatch.setattr(trust, "BUNDLES", (tmp_path / "missing.crt", path))
    return path


@pytest.fixture
def private(tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    """A server with a certificate of a private CA: its URL, and the CA's own certificate."""
    ca, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = tmp_path / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(secret + certificate("server", key, "our CA", ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    yield f"https://127.0.0.1:{server.server_address[1]}", certificate("our CA", ca, "our CA", ca)
    server.shutdown()
    serving.join()
    server.server_close()


async def fetched(url: str, path: Path) -> bytes:
    part = download.Part(path)
    await download.download(
        f"{url}/image", part, hosts=LOOPBACK, tell=lambda *_: None, check=lambda _: None, most=2 * len(BODY)
    )
    return path.read_bytes()


async def test_an_image_comes_from_a_server_of_a_ca_that_the_system_trusts(
    tmp_path: Path, bundle: Path, private: tuple[str, bytes]
) -> None:
    url, ca = private
    with pytest.raises(download.Interrupted, match="add the CA to the host's store"):
        await fetched(url, tmp_path / "image.part")
    bundle.write_bytes(b"no certificate at all")
    with pytest.raises(download.Interrupted, match="add the CA to the host's store"):
        await fetched(url, tmp_path / "image.part")
    bundle.write_bytes(ca)  # a running process sees it
    assert await fetched(url, tmp_path / "image.part") == BODY


async def test_ssl_cert_file_says_whom_to_trust_instead(
    tmp_path: Path, bundle: Path, private: tuple[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, ca = private
    own = tmp_path / "own.crt"
    own.write_bytes(ca)
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    assert await fetched(url, tmp_path / "image.part") == BODY
    other = ec.generate_private_key(ec.SECP256R1())
    own.write_bytes(certificate("other", other, "other", other))
    bundle.write_bytes(ca)
    (tmp_path / "image.part").unlink()
    with pytest.raises(download.Interrupted):
        await fetched(url, tmp_path / "image.part")


async def test_the_cli_trusts_whom_the_system_trusts(
    bundle: Path, private: tuple[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, ca = private
    monkeypatch.setattr("cli.client.client.TRIES", 0)
    with pytest.raises(Unreachable, match="certificate"):
        await asyncio.to_thread(Client(url, None, print).get, "/v1/nodes")
    bundle.write_bytes(ca)
    assert await asyncio.to_thread(Client(url, None, print).get, "/v1/nodes") == {"ok": True}


async def test_the_data_of_a_guest_comes_from_whom_the_system_trusts(bundle: Path, private: tuple[str, bytes]) -> None:
    url, ca = private
    with pytest.raises(Temporary, match="CERTIFICATE_VERIFY_FAILED"):
        await seed_disk.fetch(f"{url}/secret/")
    bundle.write_bytes(ca)
    assert await seed_disk.fetch(f"{url}/secret/") == dict.fromkeys(seed_disk.DOCUMENTS, BODY)


@pytest.mark.parametrize("url", ["http://192.0.2.1/", "HTTP://192.0.2.1/"])
def test_nothing_is_read_for_a_server_without_tls(url: str, bundle: Path) -> None:
    bundle.write_bytes(b"no certificate at all")
    context = trust.trusted_at(url)
    assert (context.get_ca_certs(), context.verify_mode, context.check_hostname) == ([], ssl.CERT_REQUIRED, True)
    assert trust.trusted_at("https://192.0.2.1/").get_ca_certs()
