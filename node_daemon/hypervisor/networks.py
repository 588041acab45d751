"""The libvirt networks of the guests. They are activated before a guest starts. The calls block: use a thread."""

from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from node_daemon.hypervisor.guest_network import GuestNetwork
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


def is_active(connection: Any, name: str) -> bool:
    """Whether there is such a network, and it is active. Raises libvirtError."""
    try:
        return bool(connection.networkLookupByName(name).isActive())
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_NETWORK:
            raise
        return False


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


def describe(connection: Any, name: str) -> GuestNetwork:
    """The network as it is now; it is activated if it is not. Raises Refused and libvirtError.

    The DHCP servers are those of all active networks, since a suspended guest may be of another one.
    """
    activate(connection, name)
    servers: set[str] = set()
    leases: dict[str, str] = {}
    has_ipv6 = False
    for network in connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE):
        described = ET.fromstring(network.XMLDesc())  # noqa: S314  (libvirt's own)
        if described.find("ip/dhcp") is not None:  # a server answers from the first address of its bridge
            servers |= {ip.get("address", "") for ip in described.iterfind("ip") if ip.get("family") != "ipv6"}
        leases |= {each["ipaddr"]: each["mac"].lower() for each in network.DHCPLeases() if ":" not in each["ipaddr"]}
        if network.name() == name:
            has_ipv6 = any(ip.get("family") == "ipv6" for ip in described.iterfind("ip"))
    return GuestNetwork(tuple(sorted(servers)), has_ipv6, leases)


def of(xml: str) -> set[str]:
    """The names of the networks that the interfaces of a domain use."""
    sources = ET.fromstring(xml).iterfind("devices/interface[@type='network']/source")  # noqa: S314  (libvirt's own)
    return {name for source in sources if (name := source.get("network"))}
