"""The settings of the authority of the bus."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from runtime.members import Member, members
from runtime.settings.common import Common


def _servers(text: str) -> str:
    members(text)
    return text


class AuthoritySettings(Common):
    """The authority of a bus whose server and roles are started one by one. Its home has all keys of the bus."""

    #: folder in which a folder of each role gets the files that the role needs
    bus_files: Path = Path("/var/lib/nebula-bus")
    #: folder in which the NATS server keeps the accounts, as the server sees it
    bus_resolver: Path = Path("/var/lib/nats/accounts")
    #: log of the NATS server, in which it says which messages it refuses; without it they are not recorded
    bus_log: Path | None = None
    #: the NATS servers of a cluster, as NAME=ADDRESS, separated by commas; empty for one server that clients reach
    #: without TLS
    bus_servers: Annotated[str, AfterValidator(_servers)] = ""
    #: folder in which each server of a cluster finds its own files on its host
    bus_server_files: Path = Path("/etc/nats")

    @property
    def bus_members(self) -> tuple[Member, ...]:
        """The servers of the cluster; none without one."""
        return members(self.bus_servers)
