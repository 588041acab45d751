"""The libvirt filters (nwfilter) on the interface of each guest: no guest can use the addresses of another one.

A guest sends with its own MAC address, from the IPv4 address that the DHCP server of the network gave it. It cannot be
a DHCP server, and sends and gets nothing but IPv4 and ARP; on a network with IPv6 also IPv6, but no router
advertisements, no redirects and no answers of a DHCP server. libvirt removes the rules with the domain, and makes them
again when it is restarted. Filters of others are not touched. The calls block: use a thread.
"""

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from node_daemon.hypervisor.host_names import FILTER, HostNames
from node_daemon.hypervisor.hypervisor import Refused
from runtime import logs

log = logs.get(__name__)

#: Seconds between the tries of a start whose filter could not be made.
PAUSES = (0.2, 1.0, 3.0)
#: Of the uuids of filters.
UUIDS = uuid.UUID("5b0a52d6-6e0b-4a53-9c1c-0f2f6a4a7e11")

#: What a guest sends on any network, up to its last rule: its own MAC address, no answers of a DHCP server, and the
#: address that it was given. `$IP` stands for each such address.
_COMMON = """
  <rule action='drop' direction='out' priority='100'><mac match='no' srcmacaddr='$MAC'/></rule>
  <rule action='accept' direction='out' priority='200'>
    <ip srcipaddr='0.0.0.0' dstipaddr='255.255.255.255' protocol='udp' srcportstart='68' dstportstart='67'/>
  </rule>
  <rule action='drop' direction='out' priority='210'><ip protocol='udp' srcportstart='67'/></rule>
  <rule action='accept' direction='out' priority='220'><ip srcipaddr='$IP'/></rule>
  <rule action='drop' direction='out' priority='300'><arp match='no' arpsrcmacaddr='$MAC'/></rule>
  <rule action='accept' direction='out' priority='310'><arp arpsrcipaddr='$IP'/></rule>
  <rule action='accept' direction='out' priority='320'><arp arpsrcipaddr='0.0.0.0'/></rule>
  <rule action='accept' direction='in' priority='600'><mac protocolid='ipv4'/></rule>
  <rule action='accept' direction='in' priority='610'><mac protocolid='arp'/></rule>
"""
_IPV6 = """
  <rule action='drop' direction='out' priority='400'><ipv6 protocol='icmpv6' type='134'/></rule>
  <rule action='drop' direction='out' priority='410'><ipv6 protocol='icmpv6' type='137'/></rule>
  <rule action='drop' direction='out' priority='420'><ipv6 protocol='udp' srcportstart='547'/></rule>
  <rule action='accept' direction='inout' priority='620'><mac protocolid='ipv6'/></rule>
"""


def _whole(kind: str, rules: str) -> str:
    """The filter that a domain names: these rules, and nothing else passes.

    All rules are in one chain: for each further chain, libvirt runs several programs more.
    """
    rest = "<rule action='drop' direction='inout' priority='1000'/>"
    return f"<filter name='NAME-{kind}' chain='root'>{rules}{rest}</filter>"


#: The filters that domains name: on a network without IPv6, and with it.
IPV4_ONLY, WITH_IPV6 = "single", "dual"
FILTERS = (_whole(IPV4_ONLY, _COMMON), _whole(WITH_IPV6, _COMMON + _IPV6))
#: Filters of earlier versions, which these two named.
EARLIER = ("mac", "ipv4", "arp", "ipv6")


@dataclass(frozen=True)
class GuestFilter:
    """The filter of the interfaces of guests. `dhcp_server`: the only one whose answers count; None if any counts."""

    names: HostNames
    kind: str = IPV4_ONLY
    dhcp_server: str | None = None

    def reference(self) -> ET.Element:
        """Its element in the interface of a domain. libvirt learns the addresses of the guest from DHCP answers."""
        found = ET.Element("filterref", filter=self.names.filter(self.kind))
        ET.SubElement(found, "parameter", name="CTRL_IP_LEARNING", value="dhcp")
        if self.dhcp_server is not None:
            ET.SubElement(found, "parameter", name="DHCPSERVER", value=self.dhcp_server)
        return found


def is_used(xml: str) -> bool:
    """Whether an interface of a domain has one of these filters."""
    return any(
        each.get("filter", "").startswith(FILTER)
        for each in ET.fromstring(xml).iterfind("devices/interface/filterref")  # noqa: S314  (libvirt's own)
    )


def prepare(connection: Any, network: Any, names: HostNames) -> GuestFilter:
    """Define the filters of this node that are missing or differ. Returns the filter for guests on the network.

    Raises Refused (filter_missing) if libvirt on this host has no filters, and libvirtError.
    """
    try:
        for text in FILTERS:
            _define(connection, _named(text, names))
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        detail = "libvirt on this node cannot filter the traffic of guests: install its nwfilter driver and ebtables"
        raise Refused(f"{detail}, then start the VM", code="filter_missing") from error
    described = ET.fromstring(network.XMLDesc())  # noqa: S314  (libvirt's own)
    address = next((ip.get("address") for ip in described.iterfind("ip[dhcp]") if ip.get("family") != "ipv6"), None)
    has_ipv6 = any(ip.get("family") == "ipv6" for ip in described.iterfind("ip"))
    return GuestFilter(names, WITH_IPV6 if has_ipv6 else IPV4_ONLY, address)


def patiently(start: Callable[[], object]) -> None:
    """Start a domain. libvirt's programs fail if others change the rules of the host meanwhile: then it is tried again.

    Raises libvirtError.
    """
    for pause in PAUSES:
        try:
            start()
            return
        except libvirt.libvirtError as error:
            if not _is_unfiltered(error):
                raise
            log.warning("the filter of a guest could not be made; the start is tried again", error=str(error))
        time.sleep(pause)
    start()


def _is_unfiltered(error: libvirt.libvirtError) -> bool:
    """Whether a domain did not start because its filter could not be made."""
    sources = (libvirt.VIR_FROM_NWFILTER, libvirt.VIR_FROM_FIREWALL)
    kinds = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_BUILD_FIREWALL)
    return error.get_error_domain() in sources and error.get_error_code() in kinds


def remove(connection: Any, names: HostNames) -> None:
    """Remove the filters of a node. libvirt keeps those of guests that run."""
    for kind in (IPV4_ONLY, WITH_IPV6, *EARLIER):
        found = _found(connection, names.filter(kind))
        if found is not None:
            with contextlib.suppress(libvirt.libvirtError):  # it is in use
                found.undefine()


def _named(text: str, names: HostNames) -> ET.Element:
    return ET.fromstring(text.replace("NAME", names.filter()))  # noqa: S314  (constants)


def _found(connection: Any, name: str) -> Any:
    """The filter with this name; None if there is none.

    Lists of filters are not used: libvirt 9 locks the filters of a list one after the other, in another order than the
    start of a guest does, and then both wait for ever, and all later starts with them.
    """
    try:
        return connection.nwfilterLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_NWFILTER:
            return None
        raise


def _define(connection: Any, wanted: ET.Element) -> None:
    name = wanted.get("name", "")
    found = _found(connection, name)
    if found is not None:
        current = ET.fromstring(found.XMLDesc())  # noqa: S314  (libvirt's own)
        if rules(current) == rules(wanted):
            return
        wanted_uuid = found.UUIDString()
        log.warning("a filter of guests was changed; it is defined again", filter=name)
    else:
        wanted_uuid = str(uuid.uuid5(UUIDS, name))
    element = ET.Element("uuid")
    element.text = wanted_uuid
    wanted.insert(0, element)
    connection.nwfilterDefineXML(ET.tostring(wanted, encoding="unicode"))


def rules(element: ET.Element) -> set[tuple[str, ...]]:
    """What a filter does, as values to compare. libvirt writes numbers in other ways, and adds defaults."""
    found: set[tuple[str, ...]] = {("chain", element.get("chain", "root"))}
    for reference in element.iterfind("filterref"):
        found.add(("reference", reference.get("filter", "")))
    for rule in element.iterfind("rule"):
        match = [f"{each.tag} {name}={_plain(value)}" for each in rule for name, value in sorted(each.attrib.items())]
        tags = [each.tag for each in rule]
        found.add((rule.get("action", ""), rule.get("direction", ""), rule.get("priority", "500"), *tags, *match))
    return found


def _plain(value: str) -> str:
    return str(int(value, 0)) if value.startswith("0x") else value
