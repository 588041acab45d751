"""How long an operation on a VM may take before it times out."""

from datetime import timedelta

from domain.vm.state import Vm

PLACEMENT_DEADLINE = timedelta(hours=24)
CREATE_DEADLINE = timedelta(minutes=30)
POWER_DEADLINE = timedelta(minutes=10)
DELETE_DEADLINE = timedelta(minutes=10)
#: How long a guest may take to shut down, if the request does not say.
GRACE = timedelta(seconds=90)
#: MiB per second that the slowest disk of a node can read or write.
SLOWEST_DISK = 16


def until_up(vm: Vm) -> timedelta:
    """How long a VM may take to start. The first start may take longer: it includes placement, image and disk."""
    return POWER_DEADLINE if vm.started_at else CREATE_DEADLINE if vm.node else PLACEMENT_DEADLINE


def on_disk(vm: Vm) -> timedelta:
    """How long it may take to write a VM's memory to the node's disk, or to read it."""
    return timedelta(seconds=vm.spec.memory_mib / SLOWEST_DISK)
