"""The addresses of a VM's guest: those of its present boot, and who says so."""

from domain.base import replace
from domain.vm.events import VmAddressesChanged, VmResumed, VmStarted
from domain.vm.state import Vm


def nowhere(vm: Vm) -> Vm:
    """It has no addresses."""
    return replace(vm, addresses=(), address_sources=())


def addressed(vm: Vm, event: VmStarted | VmResumed | VmAddressesChanged, *, same: bool) -> Vm:
    """The addresses that an event tells of; where it tells of none, those before it hold for the same boot alone.

    Events of earlier versions do not tell boots apart.
    """
    if not event.addresses and (same or event.address_sources is None):
        return vm
    return replace(vm, addresses=event.addresses, address_sources=event.address_sources or ())
