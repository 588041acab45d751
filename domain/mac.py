"""MAC addresses of VMs. The event that places a VM names its address.

Such events of earlier versions do not: then the address is derived from the VM's id.
"""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domain.vm import Vm  # guest-data uses this file, and nothing else of VMs

#: The number of addresses in QEMU's range, 52:54:00.
ADDRESSES = 2**24


def formatted(number: int) -> str:
    """The address with this number, from 0 to ADDRESSES - 1."""
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(3))


def derived(vm: str) -> str:
    """The address of a VM whose placement names none. It is not unique: callers choose ids."""
    return formatted(int.from_bytes(hashlib.sha256(vm.encode()).digest()[:3]))


def of(vm: "Vm") -> str:
    return vm.mac or derived(vm.id)


def free(start: int, taken: Callable[[str], bool]) -> str:
    """The first free address at or after number `start`. Raises LookupError if all are taken."""
    for step in range(ADDRESSES):
        address = formatted((start + step) % ADDRESSES)
        if not taken(address):
            return address
    raise LookupError("all MAC addresses are taken")
