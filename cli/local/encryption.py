"""`nebula up --listen`: the API and the bus on an address that others can reach, with TLS only.

The certificate is made and renewed here, as only this process reads the authority's key; with NEBULA_TLS_CERT it is
the operator's own, who renews it. The gateway sees a new file by itself, the bus is told to read it again.
"""

import asyncio
import contextlib
import ipaddress
import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cli.client.errors import Usage
from cli.local.progress import say
from runtime.files.files import put
from runtime.tls.authority import Authority, ensure_authority, ensure_server, names_of_this_host
from runtime.tls.contexts import BadCertificate, ServerTls

#: Seconds between two looks at the certificate.
LOOK_SECONDS = 30.0


@dataclass(frozen=True)
class Encryption:
    """The address on which the servers listen, and the files (PEM) of their certificate, key and authority."""

    address: str
    certificate: Path
    key: Path
    authority: Path
    home: Path
    own: Authority | None = None

    def renew(self) -> None:
        """Renew the certificate, if it is ours and it is time. Raises OSError."""
        if self.own is not None:
            ensure_server(self.certificate.parent, self.own, names_of_this_host(self.address))

    def configuration(self, base: Path) -> Path:
        """The configuration of the bus: that of `base`, on this address and with TLS. Raises OSError."""
        from runtime.local.servers import with_tls

        file = self.home / "nats-tls.conf"
        put(file, with_tls(base.read_text(), self.address, self.certificate, self.key))
        return file

    async def keep(self) -> None:
        """Renew for ever, and make the bus read each new certificate. Open connections go on."""
        seen, wrong = self._stamp(), ""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await asyncio.to_thread(self.renew)
                stamp = self._stamp()
                if stamp != seen:
                    ServerTls(self.certificate, self.key)
                    self._reload()
                    say("tls          the certificate was renewed")
                seen, wrong = stamp, ""
            except (OSError, BadCertificate) as error:
                if str(error) != wrong:
                    say(f"tls          the certificate cannot be renewed: {error}")
                wrong = str(error)

    def _stamp(self) -> tuple[int, ...]:
        found = (path.stat() for path in (self.certificate, self.key))
        return tuple(number for stat in found for number in (stat.st_mtime_ns, stat.st_ino))

    def _reload(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # a server that just ends reads the file when it starts again
            os.kill(int((self.home / "nats.pid").read_text()), signal.SIGHUP)


def require_guarded(address: str | None, *, guarded: bool) -> None:
    """Refuse an address that others can reach for a bus on which everybody may do everything. Raises Usage.

    `guarded`: the bus has accounts, or is not started here.
    """
    if address is None or guarded or is_loopback(address):
        return
    raise Usage(
        f"--listen {address}: others could reach the bus, which has no accounts; "
        "unset NEBULA_BUS_ACCOUNTS, or listen on an address of 127.0.0.0/8"
    )


def is_loopback(address: str) -> bool:
    """Whether an address can only be reached from this machine. A name counts as one that others can reach."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def encryption(
    home: Path, address: str | None, certificate: Path | None, key: Path | None, authority: Path | None
) -> Encryption | None:
    """What `--listen` needs; None without it. Raises Usage, OSError."""
    if address is None:
        if certificate is not None:
            raise Usage("NEBULA_TLS_CERT is used with --listen ADDRESS: the API and the bus then speak TLS there")
        return None
    make = partial(Encryption, address, home=home)
    try:
        if certificate is not None:
            if authority is None:
                raise Usage("NEBULA_TLS_CERT needs NEBULA_TLS_CA: the authority that nodes and clients trust")
            ServerTls(certificate, key)
            return make(certificate, key or certificate, authority)
        folder = home / "tls"
        own = ensure_authority(folder)
        made = make(folder / "server.pem", folder / "server.pem", folder / "ca.pem", own=own)
        made.renew()
        return made
    except BadCertificate as error:
        raise Usage(str(error)) from error
