"""The certificate authority of a platform, which `nebula up --listen` makes, and the certificates of its servers.

The authority is valid for ten years; its key stays in `<home>/tls/ca.key` (0600) and is needed only to renew. The
certificate of a server is valid for 30 days, and is renewed once a third of that is left. Certificate and key are in
one file, so that a reader never sees the one without the other.
"""

import hashlib
import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.files.files import put
from runtime.files.private import passable
from runtime.subjects import SHA256
from runtime.tls.contexts import BadCertificate

CA_DAYS, SERVER_DAYS = 3653, 30
#: A certificate is valid from so much before it is made: the clocks of other hosts may be behind.
BEFORE = timedelta(hours=1)
_FINGERPRINT = re.compile(f"sha256:{SHA256}")


@dataclass(frozen=True)
class Authority:
    """A certificate authority with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def fingerprint(pem: bytes) -> str:
    """The fingerprint of the first certificate in `pem`: `sha256:` and 64 hex digits. Raises BadCertificate."""
    try:
        return "sha256:" + x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex()
    except ValueError as error:
        raise BadCertificate(f"not a certificate in PEM: {error}") from error


def is_fingerprint(text: str) -> bool:
    return _FINGERPRINT.fullmatch(text) is not None


def ensure_authority(folder: Path, now: datetime | None = None) -> Authority:
    """The authority in `folder` (`ca.pem`, `ca.key`); made if there is none. Raises BadCertificate, OSError."""
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if not key.exists():
        made = _new_authority(now or datetime.now(UTC))
        passable(folder)  # roles of other users read the certificate of the authority
        put(certificate, made.pem, 0o644)
        certificate.chmod(0o644)  # whatever our umask is
        put(key, _key_pem(made.key))  # last: the authority exists once its key does
        return made
    try:
        found = load_pem_private_key(key.read_bytes(), None)
        own = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (ValueError, TypeError) as error:
        raise BadCertificate(f"{folder}: the authority cannot be read: {error}") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey) or own.public_key() != found.public_key():
        raise BadCertificate(f"{key} is not the key of {certificate}")
    return Authority(own, found)


def ensure_server(
    folder: Path, authority: Authority, names: Iterable[str], now: datetime | None = None, *, routes: bool = False
) -> bool:
    """Make or renew `server.pem` in `folder`: key, certificate, authority. Returns whether it was written.

    `names`: host names and addresses at which clients reach the servers. `routes`: the server also proves with it who
    it is to the other servers of its cluster. Raises OSError.
    """
    now = now or datetime.now(UTC)
    file, wanted = folder / "server.pem", sorted(set(names))
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if routes else [])]
    if file.exists() and _is_fresh(file.read_bytes(), authority, wanted, uses, now):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(wanted[0], authority.certificate.subject, key, now, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in wanted]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    put(file, _key_pem(key) + certificate.public_bytes(Encoding.PEM) + authority.pem)
    return True


def names_of_this_host(listening: str) -> list[str]:
    """The names and addresses at which a server that listens on this address is reached."""
    found = {"localhost", "127.0.0.1", "::1", socket.gethostname().lower()}
    address = ipaddress.ip_address(listening) if _is_address(listening) else None
    if address is None or not address.is_unspecified:
        found.add(listening)
    else:
        found |= _addresses()
    return sorted(name for name in found if name)


def _addresses() -> set[str]:
    """The addresses of this host's interfaces."""
    found: set[str] = set()
    trie, address = Path("/proc/net/fib_trie"), ""
    for line in trie.read_text().splitlines() if trie.exists() else ():
        if "|-- " in line:
            address = line.split("|-- ")[1].strip()
        elif "/32 host LOCAL" in line:
            found.add(address)
    inet6 = Path("/proc/net/if_inet6")
    for line in inet6.read_text().splitlines() if inet6.exists() else ():
        v6 = ipaddress.IPv6Address(int(line.split()[0], 16))
        if not v6.is_link_local:
            found.add(str(v6))
    return found


def _is_fresh(
    pem: bytes, authority: Authority, names: list[str], uses: list[x509.ObjectIdentifier], now: datetime
) -> bool:
    """Whether a certificate is of this authority, for these names and uses, and still long valid."""
    try:
        found = x509.load_pem_x509_certificate(pem)
        found.verify_directly_issued_by(authority.certificate)
        load_pem_private_key(pem, None)
        held = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        used = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    life = found.not_valid_after_utc - found.not_valid_before_utc
    if not found.not_valid_before_utc <= now < found.not_valid_after_utc - life / 3:
        return False
    return set(held) == {_name(name) for name in names} and list(used) == uses


def _new_authority(now: datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    short = hashlib.sha256(str(key.public_key().public_numbers().x).encode()).hexdigest()[:8]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Nebula CA {short}")])
    certificate = (
        _builder("", subject, key, now, CA_DAYS, subject=subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def _builder(
    name: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    days: int,
    *,
    subject: x509.Name | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if _is_address(name) else x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
