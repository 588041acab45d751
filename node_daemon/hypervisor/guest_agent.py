"""The facts that the agent in a guest reports, read through libvirt and validated.

libvirt's answer is a flat mapping with keys such as `fs.count`, `fs.0.mountpoint`, `fs.0.total-bytes`. Each kind of
information is requested separately: if the agent does not know one, or fails, the others are still returned.
"""

import contextlib
import ipaddress
import re
import time
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from domain.guest import (
    MOST_ADDRESSES,
    MOST_BYTES,
    MOST_FILESYSTEMS,
    MOST_INTERFACES,
    MOST_MORE,
    MOST_OFFSET,
    MOST_TEXT,
    Filesystem,
    Guest,
    Interface,
    InterfaceAddress,
    OperatingSystem,
    Timezone,
)
from node_daemon.hypervisor.hypervisor import AgentMissing, AgentSilent, Refused

Info = Mapping[str, object]
"""The agent's answer, as libvirt returns it."""

CHANNEL = "org.qemu.guest_agent.0"
#: Seconds that the agent has for one answer, and seconds after which no further question is sent.
ANSWER, ENOUGH = 5, 5.0
#: Filesystems come last: the agent hangs on a network filesystem whose server does not answer.
KINDS = (
    libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME,
    libvirt.VIR_DOMAIN_GUEST_INFO_OS,
    libvirt.VIR_DOMAIN_GUEST_INFO_TIMEZONE,
    libvirt.VIR_DOMAIN_GUEST_INFO_INTERFACES,
    libvirt.VIR_DOMAIN_GUEST_INFO_FILESYSTEM,
)
_SILENT = (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED)
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def ask(domain: Any) -> Guest:
    """The facts that the agent of a running domain reports. Blocks for at most about ENOUGH + 2 * ANSWER seconds.

    Raises Refused (AgentMissing, AgentSilent) and libvirtError. From now on libvirt waits at most ANSWER seconds for
    this agent; by default it waits for ever.
    """
    if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
        raise Refused("the domain does not run")
    if not listens(domain.XMLDesc()):
        raise AgentMissing("no agent has opened its channel")
    limit_wait(domain)
    info: dict[str, object] = {}
    refusal: Exception | None = None
    until = time.monotonic() + ENOUGH
    for kind in KINDS:
        try:
            info.update(domain.guestInfo(kind, 0))
        except UnicodeError as error:
            refusal = error
        except libvirt.libvirtError as error:
            if error.get_error_code() in _SILENT:
                refusal = AgentSilent(str(error))
                break
            refusal = error
        if time.monotonic() > until:
            break
    if not info and refusal is not None:
        raise refusal if isinstance(refusal, AgentSilent) else Refused(str(refusal))
    guest = parse(info)
    if guest == Guest():  # after the first time-out libvirt may return nothing, without an error
        raise AgentSilent("the agent reported nothing")
    return guest


def limit_wait(domain: Any) -> None:
    """Make libvirt wait at most ANSWER seconds for each answer of this agent."""
    with contextlib.suppress(libvirt.libvirtError):  # a driver without agents fails at the question instead
        domain.agentSetResponseTimeout(ANSWER, 0)


def listens(xml: str) -> bool:
    """Whether the agent's channel may be open in the guest. True as well if the driver does not know."""
    for target in ET.fromstring(xml).iterfind("devices/channel/target"):  # noqa: S314  (libvirt's own)
        if target.get("name") == CHANNEL:
            return target.get("state") != "disconnected"
    return False


def parse(info: Info) -> Guest:
    """The facts in an answer, which may contain anything: malformed values count as missing."""
    interfaces, filesystems = _number(info, "if.count", MOST_MORE), _number(info, "fs.count", MOST_MORE)
    return Guest(
        hostname=_text(info, "hostname"),
        os=_system(info),
        timezone=_timezone(info),
        interfaces=None if interfaces is None else _interfaces(info, interfaces),
        more_interfaces=max(0, (interfaces or 0) - MOST_INTERFACES),
        filesystems=None if filesystems is None else _filesystems(info, filesystems),
        more_filesystems=max(0, (filesystems or 0) - MOST_FILESYSTEMS),
    )


def _system(info: Info) -> OperatingSystem | None:
    made = OperatingSystem(
        id=_text(info, "os.id"),
        name=_text(info, "os.pretty-name") or _text(info, "os.name"),
        version=_text(info, "os.version-id") or _text(info, "os.version"),
        kernel_release=_text(info, "os.kernel-release"),
        machine=_text(info, "os.machine"),
    )
    return None if made == OperatingSystem() else made


def _timezone(info: Info) -> Timezone | None:
    offset = _number(info, "timezone.offset", MOST_OFFSET, least=-MOST_OFFSET)
    return None if offset is None else Timezone(name=_text(info, "timezone.name"), offset_seconds=offset)


def _interfaces(info: Info, count: int) -> tuple[Interface, ...]:
    made = []
    for number in range(min(count, MOST_INTERFACES)):
        one = f"if.{number}"
        mac = (_text(info, f"{one}.hwaddr") or "").lower()
        if (name := _text(info, f"{one}.name")) is not None:
            addresses = _addresses(info, one)
            made.append(Interface(name=name, mac=mac if _MAC.fullmatch(mac) else None, addresses=addresses))
    return tuple(made)


def _addresses(info: Info, interface: str) -> tuple[InterfaceAddress, ...]:
    count = _number(info, f"{interface}.addr.count", MOST_MORE) or 0
    made = []
    for number in range(min(count, MOST_ADDRESSES)):
        one = f"{interface}.addr.{number}"
        with contextlib.suppress(ValueError):  # not an address
            text, _, _ = (_text(info, f"{one}.addr") or "").partition("%")
            address = ipaddress.ip_address(text)
            prefix = _number(info, f"{one}.prefix", address.max_prefixlen)
            made.append(InterfaceAddress(address=str(address), prefix=prefix))
    return tuple(made)


def _filesystems(info: Info, count: int) -> tuple[Filesystem, ...]:
    made = []
    for number in range(min(count, MOST_FILESYSTEMS)):
        one = f"fs.{number}"
        if (mountpoint := _text(info, f"{one}.mountpoint")) is not None:
            made.append(
                Filesystem(
                    mountpoint=mountpoint,
                    device=_text(info, f"{one}.name"),
                    type=_text(info, f"{one}.fstype"),
                    total_bytes=_number(info, f"{one}.total-bytes", MOST_BYTES),
                    used_bytes=_number(info, f"{one}.used-bytes", MOST_BYTES),
                )
            )
    return tuple(sorted(made, key=lambda each: each.mountpoint))


def _text(info: Info, key: str) -> str | None:
    """The printable characters of a text; a long text is cut and ends in an ellipsis."""
    value = info.get(key)
    if not isinstance(value, str):
        return None
    shown = "".join(filter(str.isprintable, value[: 4 * MOST_TEXT])).strip()
    return (shown if len(shown) <= MOST_TEXT else f"{shown[: MOST_TEXT - 1]}…") or None


def _number(info: Info, key: str, most: int, *, least: int = 0) -> int | None:
    value = info.get(key)
    return value if type(value) is int and least <= value <= most else None
