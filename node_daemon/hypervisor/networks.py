"""libvirt's networks that guests are plugged into: active before a guest starts. Blocking calls, for a thread."""

from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from node_daemon.hypervisor.hypervisor import Refused
from runtime import logs
from runtime.local.libvirtd import DEFAULT_NETWORK

log = logs.get(__name__)

#: The network that Nebula makes where there is none. Others are their owners' to define.
OURS = "default"


def activate(connection: Any, name: str) -> None:
    """Make the network active. Raises Refused (network_missing, network_inactive) and libvirtError."""
    network = _defined(connection, name)
    if network.isActive():
        return
    try:
        network.create()
    except libvirt.libvirtError as error:
        if network.isActive():  # somebody else was faster
            return
        detail = f"libvirt cannot start the network {name} of this node: {error}; mend it (virsh net-start {name})"
        raise Refused(f"{detail}, then start the VM", code="network_inactive") from error
    log.info("network started", network=name)


def _defined(connection: Any, name: str) -> Any:
    try:
        return connection.networkLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_NETWORK:
            raise
        if name != OURS:
            detail = f"libvirt has no network {name} on this node: define it there (virsh net-define), or name another"
            raise Refused(f"{detail} (NEBULA_NETWORK), then start the VM", code="network_missing") from error
    network = connection.networkDefineXML(DEFAULT_NETWORK)
    network.setAutostart(1)
    log.warning("network defined anew", network=name)
    return network


def of(xml: str) -> set[str]:
    """The networks that a domain's interfaces name."""
    sources = ET.fromstring(xml).iterfind("devices/interface[@type='network']/source")  # noqa: S314  (libvirt's own)
    return {name for source in sources if (name := source.get("network"))}
