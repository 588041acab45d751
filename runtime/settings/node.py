"""The settings of a node."""

import re
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from runtime.settings import checks
from runtime.settings.common import Common
from runtime.subjects import SLUG


def node_name() -> str:
    """This host's name, changed to a valid node id."""
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower().split(".")[0]).strip("-")
    return name[:63] or "node"


class NodeSettings(Common):
    #: id of this node, and its region
    node: str = Field(default_factory=node_name, pattern=f"^{SLUG}$")
    region: str = Field(default="default", pattern=f"^{SLUG}$")
    #: URI of the hypervisor; test:///default is libvirt's in-memory test driver
    libvirt_uri: str = "qemu:///system"
    #: libvirt network of the guests
    network: str = "default"
    #: rules of nftables and iptables protect guests from each other, and this host; without them none starts
    guest_firewall: bool = True
    #: base URL of the cloud-init data source for guests of this node
    seed_url: Annotated[str, AfterValidator(checks.directory_url)] = "http://192.168.122.1:8775/"
    #: capacity of this host for VMs; default: all of it (disk: the size of the file system of the data folder)
    vcpus: int | None = Field(default=None, ge=1)
    memory_mib: int | None = Field(default=None, ge=64)
    disk_gib: int | None = Field(default=None, ge=1)
    #: seconds between two heartbeats, and between two checks of all domains
    heartbeat_seconds: float = Field(default=4.0, gt=0, le=60)
    resync_seconds: float = Field(default=2.0, gt=0, le=600)
    #: maximum seconds of one call to libvirt
    libvirt_deadline: float = Field(default=60.0, gt=0, le=600)
    #: maximum number of domains that are started concurrently, for example after a boot of the host
    parallel_starts: int = Field(default=8, ge=1, le=32)
    #: GiB of base images that are cached, in addition to those that disks need; 0 for no limit
    image_cache_gib: float = Field(default=50.0, ge=0)
    #: format of base images: raw (a qcow2 is converted), or the format of their source
    image_base: Literal["raw", "source"] = "raw"
    #: seconds between two samples of what guests and the host use; 0: none are taken
    usage_seconds: float = Field(default=30.0, ge=0, le=3600)
    #: address and port of the metrics for Prometheus; port 0: none
    metrics_host: Annotated[str, AfterValidator(checks.address)] = "127.0.0.1"
    metrics_port: int = Field(default=9177, ge=0, le=65535)
    #: folder for images, disks and console logs
    node_data: Path | None = None
    #: file with the key of this node; a daemon that has it accepts no wanted document without a MAC
    node_key_file: Path | None = None
    #: get the lease of this node, although it belongs to a daemon on another folder, whose disks are lost
    take_over: bool = False

    @property
    def data_dir(self) -> Path:
        return self.node_data or self.home / "node"

    @property
    def node_key_path(self) -> Path:
        return self.node_key_file or self.data_dir / "node.key"
