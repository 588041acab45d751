"""How long an operation on a VM may take before it counts as timed out."""

from datetime import timedelta

from domain.vm.state import Vm

PLACEMENT_DEADLINE = timedelta(hours=24)
CREATE_DEADLINE = timedelta(minutes=30)
POWER_DEADLINE = timedelta(minutes=10)
DELETE_DEADLINE = timedelta(minutes=10)
#: How long a guest may take to shut down where nobody says how long.
GRACE = timedelta(seconds=90)
#: MiB a second that a node's disk takes at the least.
SLOWEST_DISK = 16


def until_up(vm: Vm) -> timedelta:
    """How long a VM may take to come up: less than at first, once it has."""
    return POWER_DEADLINE if vm.started_at else CREATE_DEADLINE if vm.node else PLACEMENT_DEADLINE


def on_disk(vm: Vm) -> timedelta:
    """How long a VM's memory may take to or from the node's disk."""
    return timedelta(seconds=vm.spec.memory_mib / SLOWEST_DISK)
