"""The MAC addresses of all VMs that still exist: a VM that is placed gets an address that no other VM has."""

from collections import Counter

from domain import mac
from domain.vm import Vm


class Macs:
    """The addresses in use. VMs of earlier versions may share one: it is in use until the last of them is deleted."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}
        self._held: Counter[str] = Counter()

    def keep(self, vm: Vm) -> None:
        """A VM exists. It has an address once it has a node."""
        self._set(vm.id, mac.of(vm) if vm.node is not None else None)

    def drop(self, vm_id: str) -> None:
        """A VM is deleted, also on its node."""
        self._set(vm_id, None)

    def taken(self, address: str) -> bool:
        return address in self._held

    def _set(self, vm_id: str, address: str | None) -> None:
        before = self._of.get(vm_id)
        if before == address:
            return
        if before is not None:
            self._held[before] -= 1
            if not self._held[before]:
                del self._held[before]
            del self._of[vm_id]
        if address is not None:
            self._of[vm_id] = address
            self._held[address] += 1
