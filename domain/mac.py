"""MAC addresses of VMs: held by the event that places a VM; of one that was placed before that, derived from its id."""

import hashlib
from collections.abc import Callable

from domain.vm import Vm

#: How many there are: 52:54:00 is QEMU's own range, and three bytes follow.
MANY = 2**24


def written(number: int) -> str:
    """The address of a number."""
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(3))


def derived(vm: str) -> str:
    """The address of a VM whose placement says none. Whoever chooses ids can choose two with the same one."""
    return written(int.from_bytes(hashlib.sha256(vm.encode()).digest()[:3]))


def of(vm: Vm) -> str:
    return vm.mac or derived(vm.id)


def free(start: int, taken: Callable[[str], bool]) -> str:
    """The first address from a number on that nobody has. Raises LookupError where there is none."""
    for step in range(MANY):
        found = written((start + step) % MANY)
        if not taken(found):
            return found
    raise LookupError("all MAC addresses are taken")
