"""TLS contexts: of a server, whose certificate is replaced while it serves, and of a client that pins an authority."""

import asyncio
import contextlib
import ssl
from pathlib import Path

from runtime import logs

log = logs.get(__name__)

#: Seconds between two looks at the files.
LOOK_SECONDS = 2.0


class BadCertificate(Exception):
    """A certificate or its key cannot be used. The text says which file, and why."""


class ServerTls:
    """The context of a server: TLS 1.2 or newer. New connections get the newest certificate; open ones go on."""

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        """`key`: None if the key is in the certificate's file. Raises BadCertificate."""
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._stamp = self._stamped()
        self._load()

    def refresh(self) -> bool:
        """Load the certificate again if its file has changed; returns whether it has. Raises BadCertificate."""
        stamp = self._stamped()
        if stamp == self._stamp:
            return False
        self._load()
        self._stamp = stamp
        return True

    async def watch(self) -> None:
        """Look at the files for ever. While the new ones cannot be used, the old certificate is served."""
        wrong = ""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self.refresh():
                    log.info("certificate loaded again", file=str(self._certificate))
                wrong = ""
            except BadCertificate as error:
                if str(error) != wrong:
                    log.error("the new certificate cannot be used; the old one is served", error=str(error))
                wrong = str(error)

    def _load(self) -> None:
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # a failure must not leave the live context half changed
        for context in (trial, self.context):
            try:
                context.load_cert_chain(self._certificate, self._key)
            except (OSError, ValueError) as error:
                raise BadCertificate(f"{self._certificate} and its key cannot be used: {error}") from error

    def _stamped(self) -> tuple[int, ...]:
        found: list[int] = []
        for path in (self._certificate, self._key):
            with contextlib.suppress(OSError):
                stat = path.stat() if path is not None else None
                found += [stat.st_mtime_ns, stat.st_ino] if stat is not None else []
        return tuple(found)


def unverified() -> ssl.SSLContext:
    """The context of a first contact, which only fetches the authority to compare its fingerprint. Send no secret."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def pinned(authority: bytes | Path) -> ssl.SSLContext:
    """The context of a client that trusts only this authority: PEM, or a file of it. Raises BadCertificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        text = authority.read_bytes() if isinstance(authority, Path) else authority
        context.load_verify_locations(cadata=text.decode("ascii"))
    except (OSError, ValueError) as error:
        raise BadCertificate(f"the authority cannot be used: {error}") from error
    return context
