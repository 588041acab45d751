"""Whom this host trusts: the certificates of servers are judged by the system's own store."""

import os
import ssl
from collections.abc import Iterable
from pathlib import Path

#: Where systems keep their bundle. OpenSSL looks where it was built to look: a Python of another origin, elsewhere.
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
    """A context that trusts whom the host trusts now, a private CA in its store among them."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile not in (None, paths.openssl_cafile) or paths.capath not in (None, paths.openssl_capath):
        return context  # the operator has said whom to trust instead: SSL_CERT_FILE, SSL_CERT_DIR
    read = {os.path.realpath(paths.openssl_cafile)}
    for path in BUNDLES if bundles is None else bundles:
        real = os.path.realpath(path)
        if real not in read and path.is_file():
            read.add(real)
            try:
                context.load_verify_locations(path)
            except OSError:
                continue  # unreadable, or no certificate in it: the others count all the same
    return context


def distrusted(error: BaseException | None) -> bool:
    """Whether an error is, at its bottom, that a server's certificate could not be verified."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
