"""The agent in a guest: asked through libvirt, and its answers made fit to be told.

libvirt's answer is one flat mapping, such as `fs.count`, `fs.0.mountpoint`, `fs.0.total-bytes`. Each kind of question
is asked by itself: an agent that does not know one, or fails at it, still answers the others.
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

Said = Mapping[str, object]
"""What libvirt says that the agent says."""

CHANNEL = "org.qemu.guest_agent.0"
#: Seconds for the agent to answer one question, and after how many of them no other is put.
ANSWER, ENOUGH = 5, 5.0
#: Filesystems come last: the agent is stuck at a mounted one whose server is gone.
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
    """What the agent of a running domain says; blocks for at most about ENOUGH and two times ANSWER seconds.

    Raises Refused (AgentMissing, AgentSilent) and libvirtError. libvirt keeps the patience of ANSWER seconds for all
    that it asks of this agent from now on; without it, it waits for ever.
    """
    if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
        raise Refused("the domain does not run")
    if not listens(domain.XMLDesc()):
        raise AgentMissing("no agent has opened its channel")
    be_brief(domain)
    said: dict[str, object] = {}
    refusal: Exception | None = None
    until = time.monotonic() + ENOUGH
    for kind in KINDS:
        try:
            said.update(domain.guestInfo(kind, 0))
        except UnicodeError as error:
            refusal = error
        except libvirt.libvirtError as error:
            if error.get_error_code() in _SILENT:
                refusal = AgentSilent(str(error))
                break
            refusal = error
        if time.monotonic() > until:
            break
    if not said and refusal is not None:
        raise refusal if isinstance(refusal, AgentSilent) else Refused(str(refusal))
    guest = parse(said)
    if guest == Guest():  # libvirt may answer at the first time-out with nothing, and without an error
        raise AgentSilent("the agent said nothing")
    return guest


def be_brief(domain: Any) -> None:
    """Have libvirt wait for ANSWER seconds at the most, for whatever it asks of this agent from now on."""
    with contextlib.suppress(libvirt.libvirtError):  # drivers without agents say so when they are asked
        domain.agentSetResponseTimeout(ANSWER, 0)


def listens(xml: str) -> bool:
    """Whether somebody in the guest may hear the agent's channel. Drivers that do not know are to be asked."""
    for target in ET.fromstring(xml).iterfind("devices/channel/target"):  # noqa: S314  (libvirt's own)
        if target.get("name") == CHANNEL:
            return target.get("state") != "disconnected"
    return False


def parse(said: Said) -> Guest:
    """A guest out of anything: what makes no sense was not said."""
    interfaces, filesystems = _number(said, "if.count", MOST_MORE), _number(said, "fs.count", MOST_MORE)
    return Guest(
        hostname=_text(said, "hostname"),
        os=_system(said),
        timezone=_timezone(said),
        interfaces=None if interfaces is None else _interfaces(said, interfaces),
        more_interfaces=max(0, (interfaces or 0) - MOST_INTERFACES),
        filesystems=None if filesystems is None else _filesystems(said, filesystems),
        more_filesystems=max(0, (filesystems or 0) - MOST_FILESYSTEMS),
    )


def _system(said: Said) -> OperatingSystem | None:
    made = OperatingSystem(
        id=_text(said, "os.id"),
        name=_text(said, "os.pretty-name") or _text(said, "os.name"),
        version=_text(said, "os.version-id") or _text(said, "os.version"),
        kernel_release=_text(said, "os.kernel-release"),
        machine=_text(said, "os.machine"),
    )
    return None if made == OperatingSystem() else made


def _timezone(said: Said) -> Timezone | None:
    offset = _number(said, "timezone.offset", MOST_OFFSET, least=-MOST_OFFSET)
    return None if offset is None else Timezone(name=_text(said, "timezone.name"), offset_seconds=offset)


def _interfaces(said: Said, count: int) -> tuple[Interface, ...]:
    made = []
    for number in range(min(count, MOST_INTERFACES)):
        one = f"if.{number}"
        mac = (_text(said, f"{one}.hwaddr") or "").lower()
        if (name := _text(said, f"{one}.name")) is not None:
            addresses = _addresses(said, one)
            made.append(Interface(name=name, mac=mac if _MAC.fullmatch(mac) else None, addresses=addresses))
    return tuple(made)


def _addresses(said: Said, interface: str) -> tuple[InterfaceAddress, ...]:
    count = _number(said, f"{interface}.addr.count", MOST_MORE) or 0
    made = []
    for number in range(min(count, MOST_ADDRESSES)):
        one = f"{interface}.addr.{number}"
        with contextlib.suppress(ValueError):  # not an address
            text, _, _ = (_text(said, f"{one}.addr") or "").partition("%")
            address = ipaddress.ip_address(text)
            prefix = _number(said, f"{one}.prefix", address.max_prefixlen)
            made.append(InterfaceAddress(address=str(address), prefix=prefix))
    return tuple(made)


def _filesystems(said: Said, count: int) -> tuple[Filesystem, ...]:
    made = []
    for number in range(min(count, MOST_FILESYSTEMS)):
        one = f"fs.{number}"
        if (mountpoint := _text(said, f"{one}.mountpoint")) is not None:
            made.append(
                Filesystem(
                    mountpoint=mountpoint,
                    device=_text(said, f"{one}.name"),
                    type=_text(said, f"{one}.fstype"),
                    total_bytes=_number(said, f"{one}.total-bytes", MOST_BYTES),
                    used_bytes=_number(said, f"{one}.used-bytes", MOST_BYTES),
                )
            )
    return tuple(sorted(made, key=lambda each: each.mountpoint))


def _text(said: Said, key: str) -> str | None:
    """What is printable of a text; a long one ends in an ellipsis."""
    value = said.get(key)
    if not isinstance(value, str):
        return None
    shown = "".join(filter(str.isprintable, value[: 4 * MOST_TEXT])).strip()
    return (shown if len(shown) <= MOST_TEXT else f"{shown[: MOST_TEXT - 1]}…") or None


def _number(said: Said, key: str, most: int, *, least: int = 0) -> int | None:
    value = said.get(key)
    return value if type(value) is int and least <= value <= most else None
