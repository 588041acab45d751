"""The bus with TLS, as `nebula up --listen` starts it: its certificate is replaced while a connection is open."""

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from cli.client.errors import Usage
from cli.local import encryption as module
from cli.local.encryption import Encryption, encryption, require_guarded
from runtime.bus import bus
from runtime.local.servers import NATS_CONF, NatsServer, start_nats
from runtime.settings import Common
from runtime.tls.authority import ensure_authority, ensure_server
from runtime.tls.contexts import pinned
from tests.waiting import eventually

ADDRESS = "127.0.0.3"


def made(home: Path) -> Encryption:
    found = encryption(home, ADDRESS, None, None, None)
    assert found is not None
    return found


async def started(home: Path, tls: Encryption) -> NatsServer:
    return await start_nats(home, conf=tls.configuration(NATS_CONF), address=ADDRESS, encrypted=True)


def settings(server: NatsServer, authority: Path) -> Common:
    return Common(nats_url=server.url, nats_ca=authority)


async def serial(server: NatsServer, authority: Path) -> int:
    """The serial number of the certificate that a new connection gets."""
    connection = bus.Connection(settings(server, authority), "test", silent=True)
    await connection.open()
    secure = connection._transport._io_writer.get_extra_info("ssl_object")  # type: ignore[union-attr]
    found = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True))
    await connection.close()
    return found.serial_number


async def test_the_bus_gets_a_new_certificate_and_connections_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    tls = made(tmp_path)
    server = await started(tmp_path, tls)
    keeping = asyncio.create_task(tls.keep())
    try:
        nc = await bus.connect(settings(server, tls.authority), "test")
        heard: list[bytes] = []

        async def hear(message: object) -> None:
            heard.append(getattr(message, "data", b""))

        await nc.subscribe("ticks", cb=hear)
        before = await serial(server, tls.authority)
        assert tls.own is not None
        tls.certificate.unlink()  # as if it had to be renewed
        await asyncio.sleep(0)

        async def renewed() -> bool:
            return await serial(server, tls.authority) != before

        await eventually(renewed, "new connections get the new certificate")
        await nc.publish("ticks", b"still here")
        await nc.flush()
        await eventually(lambda: heard == [b"still here"], "the open connection goes on")
        assert nc.stats["reconnects"] == 0
        await nc.close()
    finally:
        keeping.cancel()
        await server.stop()


async def test_the_bus_is_refused_with_another_authority_and_without_tls(tmp_path: Path) -> None:
    tls = made(tmp_path)
    server = await started(tmp_path, tls)
    other = tmp_path / "other"
    ensure_authority(other)
    try:
        with pytest.raises(ssl.SSLCertVerificationError):
            await bus.Connection(settings(server, other / "ca.pem"), "test", silent=True).open()
        plain = Common(nats_url=f"nats://{ADDRESS}:{server.port}")
        with pytest.raises(Exception, match=r"(?i)certificate|tls|ssl"):
            await bus.Connection(plain, "test", silent=True).open()
    finally:
        await server.stop()


def test_a_certificate_of_ones_own(tmp_path: Path) -> None:
    authority = ensure_authority(tmp_path / "mine")
    ensure_server(tmp_path / "mine", authority, [ADDRESS])
    file = tmp_path / "mine" / "server.pem"
    with pytest.raises(Usage, match="NEBULA_TLS_CA"):
        encryption(tmp_path, ADDRESS, file, None, None)
    with pytest.raises(Usage, match="--listen"):
        encryption(tmp_path, None, file, None, None)
    with pytest.raises(Usage, match="cannot be used"):
        encryption(tmp_path, ADDRESS, tmp_path / "mine" / "ca.pem", None, tmp_path / "mine" / "ca.pem")
    found = encryption(tmp_path, ADDRESS, file, None, tmp_path / "mine" / "ca.pem")
    assert found is not None and found.own is None
    before = file.read_bytes()
    found.renew()
    assert file.read_bytes() == before, "it is not ours to renew"
    assert not (tmp_path / "tls").exists()
    assert pinned(found.authority)


@pytest.mark.parametrize("address", ["10.0.0.1", "0.0.0.0", "::", "2001:db8::1", "cloud.example", "127.0.0.1.example"])
def test_a_bus_without_accounts_is_not_served_to_others(address: str) -> None:
    with pytest.raises(Usage, match="accounts"):
        require_guarded(address, guarded=False)
    require_guarded(address, guarded=True)
    for here in (None, "127.0.0.1", "127.0.0.2", "::1", "localhost"):
        require_guarded(here, guarded=False)


def test_without_listen_there_is_none(tmp_path: Path) -> None:
    assert encryption(tmp_path, None, None, None, None) is None
    assert not (tmp_path / "tls").exists()
