"""The libvirt networks of the guests. They are activated before a guest starts. The calls block: use a thread."""

from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from node_daemon.hypervisor.hypervisor import Refused
from runtime import logs
from runtime.local.libvirtd import DEFAULT_NETWORK

log = logs.get(__name__)

#: The network that Nebula defines if it is missing. Operators define all other networks.
OURS = "default"


def activate(connection: Any, name: str) -> Any:
    """Make the network active, and return it. Raises Refused (network_missing, network_inactive) and libvirtError."""
    network = _defined(connection, name)
    if network.isActive():
        return network
    try:
        network.create()
    except libvirt.libvirtError as error:
        if network.isActive():  # another process has started it
            return network
        detail = f"libvirt cannot start the network {name} of this node: {error}; repair it (virsh net-start {name})"
        raise Refused(f"{detail}, then start the VM", code="network_inactive") from error
    log.info("network started", network=name)
    return network


def _defined(connection: Any, name: str) -> Any:
    try:
        return connection.networkLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_NETWORK:
            raise
        if name != OURS:
            detail = f"libvirt on this node has no network {name}: define it (virsh net-define), or set NEBULA_NETWORK"
            raise Refused(f"{detail} to another one; then start the VM", code="network_missing") from error
    network = connection.networkDefineXML(DEFAULT_NETWORK)
    network.setAutostart(1)
    log.warning("network defined", network=name)
    return network


def of(xml: str) -> set[str]:
    """The names of the networks that the interfaces of a domain use."""
    sources = ET.fromstring(xml).iterfind("devices/interface[@type='network']/source")  # noqa: S314  (libvirt's own)
    return {name for source in sources if (name := source.get("network"))}
