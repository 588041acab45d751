"""This machine as a node of a cluster on it: it joins as another host does, and runs guests in its libvirt."""

import hashlib
import os
import secrets
from pathlib import Path

from cli.client import joining
from cli.client.client import Client, path
from cli.local.cluster.cluster import Cluster
from cli.local.role import COMMAND
from node_daemon.membership.credentials import Files
from runtime.files.private import passable
from runtime.local.libvirtd import Libvirt
from runtime.local.supervise import Role

NAME = "here"
#: The roles of a host with guests.
ROLES = ("node", "guest-data")
#: Settings of the node that are passed on.
KEPT = ("NEBULA_LIBVIRT_URI", "NEBULA_NETWORK")


def join(home: Path, api: Client) -> None:
    """Get a credential for this machine, unless it has one. Raises CliError, OSError."""
    passable(home)
    if Files(home).held() is not None:
        return
    token = f"nbj_{NAME}_{secrets.token_urlsafe(32)}"
    body = {"digest": hashlib.sha256(token.encode()).hexdigest(), "minutes": 5}
    api.send("POST", path("enrollments", NAME, "issue"), body)
    joining.exchange(home, api, token)


def roles(cluster: Cluster, home: Path, libvirt: Libvirt, seed_port: int) -> list[Role]:
    """The node daemon, and what tells its guests their data, in the network of this machine."""
    host = libvirt.host_address
    found = {
        "HOME": home,
        "NODE": NAME,
        "SEED_HOST": host,
        "SEED_PORT": seed_port,
        "SEED_URL": f"http://{host}:{seed_port}/",
        "PLATFORM_PORTS": seed_port,
    }
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    environment = kept | {f"NEBULA_{key}": str(value) for key, value in (found | dict(cluster.more)).items()}
    return [Role(f"{name}-{NAME}", [*COMMAND, name], environment) for name in ROLES]
