"""The properties of this host: boot id, CPU architecture, capacity, version."""

import platform
import shutil
from pathlib import Path

from domain.contract import NodeInfo
from node_daemon.hypervisor.hypervisor import Capacity
from node_daemon.hypervisor.machine import MACHINES, Machine, VirtType
from node_daemon.reconcile import features
from node_daemon.reconcile.plan import Host
from runtime.local.libvirtd import kvm_trouble
from runtime.settings import NodeSettings
from runtime.tasks.patience import CannotRun
from runtime.version import VERSION

GIB = 1024**3


def this_host() -> Host:
    return Host(boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def virt_type(uri: str) -> VirtType:
    """How guests run here: simulated (libvirt's test driver), on KVM if the CPU and the kernel
    support it, or emulated.
    """
    if uri.startswith("test"):
        return "test"
    return "kvm" if kvm_trouble() is None else "qemu"


def describe(settings: NodeSettings, capacity: Capacity) -> NodeInfo:
    """The description of the node. Disk is the size of the file system, because free space changes with each VM."""
    return NodeInfo(
        node=settings.node,
        region=settings.region,
        vcpus=settings.vcpus or capacity.vcpus,
        memory_mib=settings.memory_mib or capacity.memory_mib,
        disk_gib=settings.disk_gib or shutil.disk_usage(settings.data_dir).total // GIB,
        virt_type=virt_type(settings.libvirt_uri),
        seed_url=settings.seed_url,
        version=VERSION,
        architecture=architecture(),
        features=features.names(),
    )


def architecture() -> str:
    """The CPU architecture of this host, named as images name it."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def machine() -> Machine:
    """The machine type of guests on this host. Raises CannotRun on a CPU architecture that no image supports."""
    found = MACHINES.get(architecture())
    if found is None:
        raise CannotRun(f"this host has {architecture()} CPUs; a node needs one of {', '.join(MACHINES)}")
    return found
