"""The settings of the authority of the bus."""

from pathlib import Path

from runtime.settings.common import Common


class AuthoritySettings(Common):
    """The authority of a bus whose server and roles are started one by one. Its home has all keys of the bus."""

    #: folder in which a folder of each role gets the files that the role needs
    bus_files: Path = Path("/var/lib/nebula-bus")
    #: folder in which the NATS server keeps the accounts, as the server sees it
    bus_resolver: Path = Path("/var/lib/nats/accounts")
    #: log of the NATS server, in which it says which messages it refuses; without it they are not recorded
    bus_log: Path | None = None
