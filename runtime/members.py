"""The NATS servers of a cluster: their names and addresses, and the configuration of each.

All servers have the same streams. A stream with three copies stores a message once two of them have it on disk. They
reach each other with TLS in both directions, because a server that is let in may write anything in any account.
"""

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: The port at which the servers reach each other.
ROUTE_PORT = 6222
#: The name of the cluster. A server of another one is not let in.
CLUSTER = "nebula"
#: The files in the folder of a server: its certificate and key, and the authority of all certificates.
CERTIFICATE, AUTHORITY = "server.pem", "ca.pem"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Member:
    """One server: its name, and the address of its host."""

    name: str
    address: str
    route_port: int = ROUTE_PORT

    @property
    def route(self) -> str:
        """Where the other servers reach it."""
        return f"{f'[{self.address}]' if ':' in self.address else self.address}:{self.route_port}"


def members(text: str) -> tuple[Member, ...]:
    """The servers in a text such as `a=10.0.0.1,b=10.0.0.2,c=10.0.0.3`; none in an empty one. Raises ValueError."""
    found: list[Member] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, address = part.partition("=")
        try:
            ipaddress.ip_address(address)
        except ValueError:
            address = ""
        if not address or not _NAME.fullmatch(name):
            raise ValueError("must be like a=10.0.0.1,b=10.0.0.2,c=10.0.0.3: names and addresses of the hosts")
        found.append(Member(name, address))
    if len({one.name for one in found}) < len(found) or len({one.address for one in found}) < len(found):
        raise ValueError("must have a name and an address of its own for each server")
    if len(found) == 2:
        raise ValueError("must be three servers: with two, either one is needed to store")
    return tuple(found)


def clustered(conf: str, member: Member, everybody: Sequence[Member], files: Path) -> str:
    """The configuration of one server: `conf`, on its own address, with TLS for clients and for the other servers.

    `files`: the folder with its certificate and key, and with the authority, as the server sees it.
    """
    certificate, authority = json.dumps(str(files / CERTIFICATE)), json.dumps(str(files / AUTHORITY))
    named = re.sub(r"(?m)^server_name: \S+", f"server_name: {member.name}", conf)
    moved = re.sub(r"(?m)^host: \S+", f"host: {json.dumps(member.address)}", named)
    tagged = re.sub(r"(?m)^jetstream \{", 'jetstream {\n  unique_tag: "host:"  # no two copies on one host', moved)
    routes = ", ".join(json.dumps(f"tls://{one.route}") for one in everybody)
    return "\n".join(
        [
            tagged,
            f'server_tags: ["host:{member.name}"]',
            # Who is cut off or stands still gets no requests any more after six seconds.
            'ping_interval: "2s"',
            "ping_max: 2",
            f'tls {{ cert_file: {certificate}, key_file: {certificate}, min_version: "1.2", timeout: 5 }}',
            "cluster {",
            f"  name: {CLUSTER}",
            f"  listen: {json.dumps(member.route)}",
            "  no_advertise: true  # clients have the addresses of all servers in their settings",
            f"  routes: [{routes}]",
            '  ping_interval: "1s"',
            "  ping_max: 2",
            f"  tls {{ cert_file: {certificate}, key_file: {certificate}, ca_file: {authority}, verify: true,",
            '    min_version: "1.3", timeout: 5 }',
            "}",
            "",
        ]
    )
