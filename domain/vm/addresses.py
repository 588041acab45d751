"""The addresses of a VM's guest in its present boot, with their sources."""

from domain.base import replace
from domain.vm.events import VmAddressesChanged, VmResumed, VmStarted
from domain.vm.state import Vm


def without_addresses(vm: Vm) -> Vm:
    return replace(vm, addresses=(), address_sources=())


def with_addresses(vm: Vm, event: VmStarted | VmResumed | VmAddressesChanged, *, same_boot: bool) -> Vm:
    """The VM with the addresses of the event. If it has none, the VM keeps its addresses within the same boot.

    An event of an earlier version, without `address_sources`, does not say whether the boot is the same.
    """
    if not event.addresses and (same_boot or event.address_sources is None):
        return vm
    return replace(vm, addresses=event.addresses, address_sources=event.address_sources or ())
