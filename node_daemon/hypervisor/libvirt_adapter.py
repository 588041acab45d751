"""The hypervisor interface implemented with libvirt: `qemu:///system`, and libvirt's test driver `test:///default`.

A domain is first started as a transient domain, and made persistent once it runs. So a stored configuration with a
value of `boots` proves that the domain was started for that value, even after a crash, and a failed start leaves
nothing.
"""

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree as ET

import libvirt

from domain.contract import Power
from domain.guest import Guest
from domain.guest_usage import GuestUsage
from node_daemon.hypervisor import address_sources, guest_agent, libvirt_events, networks, usage_stats
from node_daemon.hypervisor.connections import Connections
from node_daemon.hypervisor.domain_state import look, look_at_all, tag_of
from node_daemon.hypervisor.domain_xml import NAMESPACE, PREFIX, definable, needs_uefi, render, with_host_boot
from node_daemon.hypervisor.guest_network import GuestNetwork
from node_daemon.hypervisor.host_names import HostNames
from node_daemon.hypervisor.hypervisor import (
    Boot,
    Capacity,
    Channel,
    Fired,
    Have,
    Nudge,
    Refused,
    Reset,
    Sighting,
    ignore,
    size_of,
)
from node_daemon.hypervisor.libvirt_events import Listener
from node_daemon.hypervisor.machine import X86_64, Machine, VirtType
from node_daemon.hypervisor.reach import Reach, ours

T = TypeVar("T")

_USER_AND_GROUP = re.compile(r"\+[0-9]+:\+([0-9]+)")

#: The names of a node that gives none.
NAMES = HostNames(Path("/"))

_INVALID = (
    libvirt.VIR_ERR_XML_ERROR,
    libvirt.VIR_ERR_XML_DETAIL,
    libvirt.VIR_ERR_INVALID_ARG,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA,
)
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)
_UNDEFINE_TEST = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE  # the test driver knows no other flag


class LibvirtHypervisor:
    """Implements `hypervisor.Hypervisor`."""

    def __init__(
        self,
        uri: str,
        network: str,
        virt_type: VirtType,
        deadline: float,
        machine: Machine = X86_64,
        names: HostNames = NAMES,
    ) -> None:
        self._names = names
        self._uri = uri
        self._network = network
        self._virt_type = virt_type
        self._machine = machine
        self._deadline = deadline
        self._connections = Connections(uri, deadline)
        self._reach = Reach(uri, deadline)

    async def domains(self) -> Mapping[str, Have]:
        return await self._ask("all domains", look_at_all)

    async def look(self, vm: str) -> Have:
        return await self._ask(vm, lambda connection: look(connection, vm))

    async def start(self, boot: Boot) -> Have:
        wanted, machine = boot.wanted, self._machine
        if needs_uefi(wanted, machine) and self._virt_type != "test":
            machine = await self._ask(
                wanted.vm, lambda connection: with_uefi(connection, self._machine, self._virt_type)
            )
        tap = self._names.tap(wanted.vm) if self._virt_type != "test" else None
        xml = render(boot, virt_type=self._virt_type, network=self._network, machine=machine, tap=tap)
        await self._ask(
            wanted.vm, lambda connection: _start(connection, xml, self._network, needs_network=tap is not None)
        )
        return Have(
            vm=wanted.vm,
            power=Power.ON,
            boots=wanted.boots,
            epoch=wanted.epoch,
            generation=wanted.generation,
            place=wanted.place,
            disk=wanted.disk,
            size=size_of(wanted),
            host_boot=boot.host_boot,
            persistent=False,
        )

    async def persist(self, vm: str) -> None:
        await self._ask(vm, lambda connection: _keep(connection, vm))

    async def shutdown(self, vm: str) -> None:
        await self._on_domain(vm, lambda domain: domain.shutdown(), fine=(libvirt.VIR_ERR_OPERATION_INVALID,))

    async def pause(self, vm: str) -> None:
        await self._on_domain(vm, _pause)

    async def unpause(self, vm: str) -> None:
        await self._on_domain(vm, _unpause)

    async def suspend(self, vm: str, patience: float) -> None:
        await self._on_domain(vm, lambda domain: domain.isActive() and domain.managedSave(0), patience=patience)

    async def restore(self, vm: str, host_boot: str, patience: float) -> None:
        await self._on_domain(vm, lambda domain: _restore(domain, host_boot), patience=patience)

    async def discard(self, vm: str, *, leftover: bool = False) -> None:
        def remove(domain: Any) -> None:
            if domain.hasManagedSaveImage() and (domain.isActive() or not leftover):
                domain.managedSaveRemove(0)

        await self._on_domain(vm, remove)

    async def destroy(self, vm: str) -> None:
        await self._on_domain(vm, lambda domain: domain.destroy(), fine=(libvirt.VIR_ERR_OPERATION_INVALID,))

    async def undefine(self, vm: str) -> None:
        flags = _UNDEFINE_TEST if self._virt_type == "test" else _UNDEFINE
        await self._on_domain(vm, lambda domain: domain.undefineFlags(flags))

    async def addresses(self, vm: str, mac: str) -> Sighting:
        found = [Sighting()]
        with contextlib.suppress(Refused):
            await self._on_domain(
                vm, lambda domain: found.append(address_sources.ask(domain, mac)), of_guest="addresses"
            )
        return found[-1]

    async def guest(self, vm: str) -> Guest:
        return await self._ask(f"{vm} guest", lambda connection: guest_agent.ask(ours(connection, vm)), of_guest=True)

    async def usage(self) -> Mapping[str, GuestUsage]:
        """While a call hangs in the process of one guest, a second one is made, which passes over that guest."""
        key = "usage" if not self._connections.hangs("usage") else "usage again"
        return await self._ask(key, usage_stats.ask)

    async def open_console(self, vm: str, *, force: bool) -> Channel:
        return await self._reach.console(vm, force=force)

    async def open_display(self, vm: str) -> Channel:
        return await self._reach.display(vm)

    async def qemu_group(self) -> int | None:
        """The group id of the user as which guests run; None if libvirt does not change the user of QEMU."""
        return await self._ask("the user of QEMU", _qemu_group)

    async def capacity(self) -> Capacity:
        info = await self._ask("host", lambda connection: connection.getInfo())
        return Capacity(vcpus=info[2], memory_mib=info[1])

    async def ensure_network(self) -> None:
        await self._ask("network", lambda connection: networks.activate(connection, self._network))

    async def watch(self, nudge: Nudge, reset: Reset = ignore, fired: Fired = ignore) -> None:
        await libvirt_events.watch(self._uri, self._deadline, Listener(nudge, reset, fired))

    async def guest_network(self) -> GuestNetwork:
        """The network of guests, for the host's firewall. Raises Unreachable, Refused."""
        return await self._ask("network", lambda connection: networks.describe(connection, self._network))

    def close(self) -> None:
        """Close the idle connections. Domains keep running."""
        self._connections.close()

    async def _ask(
        self, key: str, work: Callable[[Any], T], patience: float | None = None, *, of_guest: bool = False
    ) -> T:
        try:
            return await self._connections.call(key, work, patience, of_guest=of_guest)
        except libvirt.libvirtError as error:
            raise Refused(str(error), invalid=error.get_error_code() in _INVALID) from error

    async def _on_domain(
        self,
        vm: str,
        work: Callable[[Any], object],
        *,
        fine: tuple[int, ...] = (),
        patience: float | None = None,
        of_guest: str | None = None,
    ) -> None:
        """Run `work` on the domain of that VM; do nothing if there is none or it is foreign.

        `fine`: libvirt error codes to ignore. `of_guest`: name of a question to the guest; no other call waits for it.
        """

        def on_connection(connection: Any) -> None:
            try:
                domain = connection.lookupByUUIDString(vm)
                if tag_of(domain) is not None:
                    work(domain)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, *fine):
                    raise

        key = f"{vm} {of_guest}" if of_guest else vm
        await self._ask(key, on_connection, patience, of_guest=of_guest is not None)


# ── blocking calls, on a thread ─────────────────────────────────────────────────────────────────────────────────────


def _start(connection: Any, xml: str, network: str, *, needs_network: bool) -> None:
    """Start the domain. If libvirt refuses it without its network (`needs_network`), that is looked at after a refusal
    only: it is active almost always, and the looks take a millisecond of each start.
    """
    if needs_network:
        try:
            connection.createXML(xml, 0)
            return
        except libvirt.libvirtError:
            if networks.is_active(connection, network):
                raise
    networks.activate(connection, network)
    connection.createXML(xml, 0)


def _keep(connection: Any, vm: str) -> None:
    """Store the XML of the running domain; libvirt leaves out what belongs to this run only (its
    pty, its tap device).
    """
    domain = connection.lookupByUUIDString(vm)
    connection.defineXML(definable(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)))


def with_uefi(connection: Any, machine: Machine, virt_type: VirtType) -> Machine:
    """The machine, without its panic device if this libvirt is too old for it.

    Raises Refused with the package to install if the node has no UEFI for guests. libvirt's own error does not say
    that.
    """
    capabilities = connection.getDomainCapabilities(None, machine.architecture, machine.type, virt_type)
    firmwares = ET.fromstring(capabilities).iterfind("os/enum[@name='firmware']/value")  # noqa: S314  (libvirt's own)
    if "efi" not in {value.text for value in firmwares}:
        why = f"guests on {machine.architecture} need" if machine.only_uefi else "the image needs"
        detail = (
            f"{why} UEFI, and this node has none for guests: install the package {machine.uefi_package} on the node"
        )
        raise Refused(detail, invalid=True)
    return machine if connection.getLibVersion() >= machine.panic_since else replace(machine, panic=None)


def _pause(domain: Any) -> None:
    if domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
        domain.suspend()


def _unpause(domain: Any) -> None:
    if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()


def _restore(domain: Any, host_boot: str) -> None:
    """Write `host_boot` into the stored configuration, which counts once the domain is off; then start the domain."""
    if domain.isActive() or not domain.hasManagedSaveImage():
        return
    config = libvirt.VIR_DOMAIN_AFFECT_CONFIG
    tag = with_host_boot(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, config), host_boot)
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, tag, PREFIX, NAMESPACE, config)
    for network in networks.of(domain.XMLDesc()):
        networks.activate(domain.connect(), network)
    domain.create()


def _qemu_group(connection: Any) -> int | None:
    for model in ET.fromstring(connection.getCapabilities()).iterfind("host/secmodel"):  # noqa: S314  (libvirt wrote it)
        for label in model.iterfind("baselabel"):
            found = _USER_AND_GROUP.fullmatch(label.text or "")
            if model.findtext("model") == "dac" and found is not None:
                return int(found[1])
    return None
