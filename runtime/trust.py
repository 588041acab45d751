"""The trusted certificates of this host: servers are verified with the system's own certificate store."""

import os
import ssl
from collections.abc import Iterable
from pathlib import Path

#: Paths of the certificate bundle on common systems. The OpenSSL of a Python from elsewhere may look at other paths.
BUNDLES = tuple(
    Path(path)
    for path in (
        "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
        "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/ca-bundle.pem",  # SUSE
        "/etc/ssl/cert.pem",  # Alpine
    )
)
HINT = "this host does not trust its certificate: add the CA to the host's store, or name it in SSL_CERT_FILE"


def trusted(bundles: Iterable[Path] | None = None) -> ssl.SSLContext:
    """A TLS context with the host's trusted certificates, including a private CA in its store."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile not in (None, paths.openssl_cafile) or paths.capath not in (None, paths.openssl_capath):
        return context  # the operator has set SSL_CERT_FILE or SSL_CERT_DIR
    read = {os.path.realpath(paths.openssl_cafile)}
    for path in BUNDLES if bundles is None else bundles:
        real = os.path.realpath(path)
        if real not in read and path.is_file():
            read.add(real)
            try:
                context.load_verify_locations(path)
            except OSError:
                continue  # it is unreadable or has no certificate; use the others
    return context


def trusted_at(url: str) -> ssl.SSLContext:
    """The TLS context for a server. That for plain HTTP trusts nobody: to read all certificates takes 20 ms of CPU."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if url.lower().startswith("http:") else trusted()


def distrusted(error: BaseException | None) -> bool:
    """Whether an error was caused by a server's certificate that could not be verified."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
