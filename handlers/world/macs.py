"""The MAC addresses of all VMs that still exist: a VM that is placed gets an address that no other VM has."""

from collections import Counter

from domain import mac
from domain.vm import Vm


class Macs:
    """The addresses in use, as numbers. VMs of earlier versions may share one: it is in use until the last of them is
    deleted.
    """

    def __init__(self) -> None:
        self._held: set[int | str] = set()
        self._shared: Counter[int | str] = Counter()
        """How many further VMs have an address."""

    def change(self, before: Vm | None, after: Vm | None) -> None:
        """A VM has changed; None: it did not exist, or it is deleted, also on its node."""
        old, new = number_of(before), number_of(after)
        if old == new:
            return
        if old is not None:
            self.drop(old)
        if new is not None:
            self.keep(new)

    def keep(self, address: int | str) -> None:
        """One more VM has an address."""
        if address in self._held:
            self._shared[address] += 1
        self._held.add(address)

    def drop(self, address: int | str) -> None:
        """One VM less has an address."""
        if address not in self._shared:
            self._held.discard(address)
            return
        self._shared[address] -= 1
        if not self._shared[address]:
            del self._shared[address]

    def taken(self, address: str) -> bool:
        return number(address) in self._held

    def copied(self) -> "Copied":
        """A copy, made fast."""
        return list(self._held), list(self._shared.items())

    def restore(self, held: "list[Address]", shared: "list[tuple[Address, int]]") -> None:
        """Fill an empty one with a copy."""
        self._held = set(held)
        self._shared = Counter(dict(shared))


Address = int | str
Copied = tuple[list[Address], list[tuple[Address, int]]]
"""The addresses in use, and how many further VMs have one of them."""


def number_of(vm: Vm | None) -> int | str | None:
    """The address of a VM as a number. It has one once it has a node."""
    return None if vm is None or vm.node is None else number(mac.of(vm))


def number(address: str) -> int | str:
    """An address as a number, which takes less memory; any other text unchanged."""
    try:
        return int(address.replace(":", ""), 16)
    except ValueError:
        return address
