"""The resources that a node has promised to VMs.

A node may have thousands of VMs, and each of their events changes this map. So the map is a persistent one: the map
after an event shares almost all its nodes with the map before it. Its sum is kept beside it.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, InstanceOf, PlainSerializer, TypeAdapter
from rpds import HashTrieMap

from domain.base import Resources

if TYPE_CHECKING:
    Map = HashTrieMap[str, Resources]
else:  # HashTrieMap is not generic at run time
    Map = HashTrieMap

NOTHING = Resources()
_BY_VM = TypeAdapter(dict[str, Resources])


class Reserved(Mapping[str, Resources]):
    """The resources promised to each VM, by the VM's id. `total`: their sum. It is immutable."""

    __slots__ = ("by_vm", "total")

    def __init__(self, by_vm: Map, total: Resources) -> None:
        self.by_vm = by_vm
        self.total = total

    @classmethod
    def of(cls, by_vm: Mapping[str, Resources]) -> "Reserved":
        shared = HashTrieMap({vm: same(resources) for vm, resources in by_vm.items()})
        return cls(shared, added(NOTHING, *by_vm.values()))

    def insert(self, vm: str, resources: Resources) -> "Reserved":
        """The map with this promise to a VM, instead of an earlier one."""
        before = self.get(vm, NOTHING)
        return Reserved(self.by_vm.insert(vm, same(resources)), added(subtracted(self.total, before), resources))

    def discard(self, vm: str) -> "Reserved":
        """The map without a promise to this VM."""
        before = self.get(vm)
        return self if before is None else Reserved(self.by_vm.discard(vm), subtracted(self.total, before))

    def __getitem__(self, vm: str) -> Resources:
        return self.by_vm[vm]

    def __contains__(self, vm: object) -> bool:
        return vm in self.by_vm

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_vm)

    def __len__(self) -> int:
        return len(self.by_vm)

    def __hash__(self) -> int:
        return hash(self.by_vm)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Reserved):
            return self.by_vm == other.by_vm
        return isinstance(other, Mapping) and dict(self) == dict(other)

    def __repr__(self) -> str:
        return f"Reserved({dict(self)!r})"


@lru_cache(maxsize=1024)
def same(resources: Resources) -> Resources:
    """One object for equal resources: many VMs have the same size."""
    return resources


def added(*resources: Resources) -> Resources:
    return Resources(
        vcpus=sum(each.vcpus for each in resources),
        memory_mib=sum(each.memory_mib for each in resources),
        disk_gib=sum(each.disk_gib for each in resources),
    )


def subtracted(resources: Resources, other: Resources) -> Resources:
    return Resources(
        vcpus=resources.vcpus - other.vcpus,
        memory_mib=resources.memory_mib - other.memory_mib,
        disk_gib=resources.disk_gib - other.disk_gib,
    )


def to_reserved(value: Any) -> Any:
    """The map made of a mapping of JSON values or resources; any other value unchanged."""
    if isinstance(value, Reserved) or not isinstance(value, Mapping):
        return value
    return Reserved.of(_BY_VM.validate_python(value))


def to_dict(reserved: Reserved) -> dict[str, dict[str, int]]:
    return {
        vm: {"vcpus": each.vcpus, "memory_mib": each.memory_mib, "disk_gib": each.disk_gib}
        for vm, each in sorted(reserved.items())
    }


Reservations = Annotated[
    InstanceOf[Reserved],
    BeforeValidator(to_reserved),
    PlainSerializer(to_dict, return_type=dict[str, dict[str, int]]),
]
NO_RESERVATIONS = Reserved.of({})
