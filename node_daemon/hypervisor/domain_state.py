"""What libvirt says about the domains of VMs. The calls block: use a thread."""

from dataclasses import replace
from typing import Any, Literal

import libvirt

from domain.contract import Power
from node_daemon.hypervisor.domain_xml import NAMESPACE, Tag, domain_name, parse_tag
from node_daemon.hypervisor.hypervisor import Have

_ON = (
    libvirt.VIR_DOMAIN_RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED,
    libvirt.VIR_DOMAIN_SHUTDOWN,
    libvirt.VIR_DOMAIN_PMSUSPENDED,
)
#: Reasons for which libvirt itself pauses a domain for a moment: the domain is neither on nor paused. Migration is not
#: one of them: libvirt shows it for a restored domain that was paused when it was suspended.
_TRANSITIONAL = (
    libvirt.VIR_DOMAIN_PAUSED_SAVE,
    libvirt.VIR_DOMAIN_PAUSED_DUMP,
    libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT,
)
#: Reasons of a pause in which libvirt is not restoring the domain.
_NOT_RESTORING = (libvirt.VIR_DOMAIN_PAUSED_USER, libvirt.VIR_DOMAIN_PAUSED_IOERROR)
#: Reasons of a pause of a domain that starts or ends now: it counts as on.
_STARTING_OR_ENDING = (libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN)
_CAUSES: dict[int, Literal["guest", "crashed"]] = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: "guest",
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: "crashed",
}
_FORCED = libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED


def look_at_all(connection: Any) -> dict[str, Have]:
    """The domains of all VMs, by VM. Raises libvirtError."""
    found: dict[str, Have] = {}
    for domain in connection.listAllDomains():
        try:
            have = _have(domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it was undefined after it was listed
                raise
            continue
        if not have.foreign:
            found[have.vm] = have
    return found


def look(connection: Any, vm: str) -> Have:
    """The domain of a VM. Raises libvirtError."""
    try:
        return _have(connection.lookupByUUIDString(vm))
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
    try:
        connection.lookupByName(domain_name(vm))
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return Have(vm=vm, power=Power.ABSENT)
    return Have(vm=vm, power=Power.ABSENT, foreign=True)


def _have(domain: Any) -> Have:
    vm = domain.UUIDString()
    tag = tag_of(domain)
    if tag is None:
        return Have(vm=vm, power=Power.UNKNOWN, foreign=True)
    state, reason = domain.state()
    have = Have(
        vm=vm,
        power=Power.UNKNOWN,
        boots=tag.boots,
        epoch=tag.epoch,
        generation=tag.generation,
        place=tag.place,
        disk=tag.disk,
        size=tag.size,
        host_boot=tag.host_boot,
    )
    if state == libvirt.VIR_DOMAIN_PAUSED and reason not in _STARTING_OR_ENDING:
        if reason in _TRANSITIONAL:
            return have
        stalled = reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR
        remains = reason in _NOT_RESTORING and _saved(domain)
        return replace(
            have, power=Power.PAUSED, persistent=_is_persistent(domain, tag), stalled=stalled, remains=remains
        )
    if state in _ON or state == libvirt.VIR_DOMAIN_PAUSED:
        remains = state == libvirt.VIR_DOMAIN_RUNNING and _saved(domain)
        return replace(have, power=Power.ON, persistent=_is_persistent(domain, tag), remains=remains)
    if state == libvirt.VIR_DOMAIN_CRASHED:  # it panicked, and libvirt has not ended it yet
        return replace(have, power=Power.OFF, cause="crashed")
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        if _saved(domain):
            return replace(have, power=Power.SUSPENDED)
        return replace(have, power=Power.OFF, cause=_CAUSES.get(reason), forced=reason == _FORCED)
    return have


def _saved(domain: Any) -> bool:
    """Whether its memory is on disk. For a running domain it is a leftover of a libvirtd that died while writing it, or
    before deleting it."""
    return bool(domain.hasManagedSaveImage())


def _is_persistent(domain: Any, tag: Tag) -> bool:
    """Whether the stored tag equals that of the running domain, apart from `host_boot`: a restored domain runs with the
    `host_boot` from before it was suspended."""
    if not domain.isPersistent():
        return False
    stored = tag_of(domain, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    return stored is not None and replace(stored, host_boot=tag.host_boot) == tag


def tag_of(domain: Any, which: int = libvirt.VIR_DOMAIN_AFFECT_CURRENT) -> Tag | None:
    """The tag of the running or stored domain (`which`); None if it has none, so is foreign."""
    try:
        return parse_tag(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, which))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise
    except ValueError:
        return None
