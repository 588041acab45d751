"""The addresses of a VM's guest: those of its present boot, and who says so."""

from collections.abc import Mapping

from domain.vm.events import VmAddressesChanged, VmResumed, VmStarted

#: It has no addresses.
NOWHERE: Mapping[str, object] = {"addresses": (), "address_sources": ()}


def addressed(event: VmStarted | VmResumed | VmAddressesChanged, *, same: bool) -> Mapping[str, object]:
    """The addresses that an event tells of; where it tells of none, those before it hold for the same boot alone.

    Events of earlier versions do not tell boots apart.
    """
    if not event.addresses and (same or event.address_sources is None):
        return {}
    return {"addresses": event.addresses, "address_sources": event.address_sources or ()}
