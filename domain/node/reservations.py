"""The resources that a node has promised to VMs.

A node may have thousands of VMs, and each of their events changes this map. So the map is a persistent one: the map
after an event shares almost all its nodes with the map before it. Its sum is kept beside it.

A row of the read models holds only the sum of the promises, and each promise has a row of its own. So a map may name
a part of the VMs, and count the others.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BeforeValidator, InstanceOf, PlainSerializer, TypeAdapter
from rpds import HashTrieMap

from domain.base import Resources

if TYPE_CHECKING:
    Map = HashTrieMap[str, Resources]
else:  # HashTrieMap is not generic at run time
    Map = HashTrieMap

NOTHING = Resources()
_BY_VM = TypeAdapter(dict[str, Resources])
UNNAMED = ""
"""The key under which the JSON of a map has the promises to VMs that it does not name. No VM has this id."""


class Others(NamedTuple):
    """The promises to VMs that a map does not name: their number, and the sum."""

    vms: int
    resources: Resources


NO_OTHERS = Others(0, NOTHING)


class Reserved(Mapping[str, Resources]):
    """The resources promised to each VM, by the VM's id. It is immutable.

    `total`: the sum of all promises, those to `others` included. Only maps made from rows have others.
    """

    __slots__ = ("by_vm", "others", "total")

    def __init__(self, by_vm: Map, total: Resources, others: Others = NO_OTHERS) -> None:
        self.by_vm = by_vm
        self.total = total
        self.others = others

    @classmethod
    def of(cls, by_vm: Mapping[str, Resources], others: Others = NO_OTHERS) -> "Reserved":
        shared = HashTrieMap({vm: same(resources) for vm, resources in by_vm.items()})
        return cls(shared, added(others.resources, *by_vm.values()), others)

    @property
    def vms(self) -> int:
        """The number of all promises."""
        return len(self.by_vm) + self.others.vms

    def insert(self, vm: str, resources: Resources) -> "Reserved":
        """The map with this promise to a VM, instead of an earlier one."""
        total = added(subtracted(self.total, self.get(vm, NOTHING)), resources)
        return Reserved(self.by_vm.insert(vm, same(resources)), total, self.others)

    def discard(self, vm: str) -> "Reserved":
        """The map without a promise to this VM."""
        before = self.get(vm)
        if before is None:
            return self
        return Reserved(self.by_vm.discard(vm), subtracted(self.total, before), self.others)

    def name(self, vm: str, resources: Resources) -> "Reserved":
        """The map that names one of the others."""
        others = Others(self.others.vms - 1, subtracted(self.others.resources, resources))
        return Reserved(self.by_vm.insert(vm, same(resources)), self.total, others)

    def unnamed(self) -> "Reserved":
        """The map that names no VM, with the same sum."""
        return Reserved(HashTrieMap(), self.total, Others(self.vms, self.total))

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
            return self.by_vm == other.by_vm and self.others == other.others
        return isinstance(other, Mapping) and dict(self) == dict(other) and not self.others.vms

    def __repr__(self) -> str:
        return f"Reserved({dict(self)!r}, others={self.others!r})"


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
    by_vm = _BY_VM.validate_python(value)
    others, found = by_vm.pop(UNNAMED, None), value.get(UNNAMED)
    if others is None:
        return Reserved.of(by_vm)
    return Reserved.of(by_vm, Others(found.get("vms", 1) if isinstance(found, Mapping) else 1, others))


def to_dict(reserved: Reserved) -> dict[str, dict[str, int]]:
    shown = {vm: amounts(each) for vm, each in sorted(reserved.items())}
    others = reserved.others
    return {UNNAMED: {"vms": others.vms, **amounts(others.resources)}, **shown} if others.vms else shown


def amounts(of: Resources) -> dict[str, int]:
    return {"vcpus": of.vcpus, "memory_mib": of.memory_mib, "disk_gib": of.disk_gib}


Reservations = Annotated[
    InstanceOf[Reserved],
    BeforeValidator(to_reserved),
    PlainSerializer(to_dict, return_type=dict[str, dict[str, int]]),
]
NO_RESERVATIONS = Reserved.of({})
