"""The settings of all processes."""

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from runtime.images.image_hosts import ImageHosts
from runtime.settings import checks


def default_home() -> Path:
    """/var/lib/nebula for root; else a folder in the user's home."""
    return Path("/var/lib/nebula") if os.geteuid() == 0 else Path.home() / ".local/share/nebula"


class Common(BaseSettings):
    """The settings of all processes."""

    model_config = SettingsConfigDict(env_prefix="NEBULA_", frozen=True, extra="ignore", hide_input_in_errors=True)

    #: folder of all local state
    home: Path = Field(default_factory=default_home)
    #: URLs of the NATS servers, separated by commas
    nats_url: Annotated[str, AfterValidator(checks.nats_servers)] = "nats://127.0.0.1:4222"
    #: user and password of this role on the bus, if the server requires them
    nats_user: str | None = None
    nats_password: str | None = None
    #: file with the authority (PEM) of the NATS servers' certificates: the connection is then encrypted, or refused
    nats_ca: Path | None = None
    #: file with the credential of this role on the bus: a JWT and its seed, as `nsc` writes them; instead of a user
    nats_creds: Path | None = None
    #: number of replicas of each stream: 1 on one server, 3 in a cluster
    nats_replicas: int = Field(default=1, ge=1, le=5)
    #: folders for image sources that are paths, separated by ':'; default: `images` and `cache` in the home
    image_paths: Annotated[str, AfterValidator(checks.folders)] | None = None
    #: addresses, networks and names (*.lan), separated by commas, from which images may be fetched, besides public ones
    image_hosts: Annotated[str, AfterValidator(checks.image_hosts)] = ""
    #: ports of the platform's servers that are not the default ones, separated by commas
    platform_ports: Annotated[str, Field(pattern=r"^([0-9]{1,5}(,[0-9]{1,5})*)?$")] = ""
    #: warn if a node's clock differs by more seconds from this process's clock
    clock_offset_seconds: float = Field(default=2.0, gt=0, le=86400)
    #: debug, info, warning or error
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    #: MiB after which a log file of `nebula up` is rotated; four old copies of each are kept
    log_mib: float = Field(default=20.0, gt=0, le=10_000)
    #: text for people, json for machines
    log_format: Annotated[str, Field(pattern="^(text|json)$")] = "text"

    @property
    def nats_urls(self) -> list[str]:
        return [url.strip() for url in self.nats_url.split(",")]

    @property
    def image_folders(self) -> tuple[Path, ...]:
        """The folders for sources of images. Not the whole home: the disks of VMs and the master key are there."""
        if self.image_paths is None:
            return (self.home / "images", self.home / "cache")
        return tuple(Path(path) for path in self.image_paths.split(":"))

    @property
    def fetch_from(self) -> ImageHosts:
        """The hosts from which images may be fetched; never the platform's own servers."""
        ports = {int(port) for port in self.platform_ports.split(",") if port}
        ports |= {int(port) for port in re.findall(r":([0-9]{1,5})(?=[/,]|$)", self.nats_url)}
        return ImageHosts.of(self.image_hosts, ports)
