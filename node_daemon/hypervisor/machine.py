"""The machine types of guests, by CPU architecture of the node: all that differs between
architectures in domain XML.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from domain.contract import Architecture

VirtType = Literal["kvm", "qemu", "test"]


@dataclass(frozen=True)
class Machine:
    """The machine type of one architecture, and its devices that other architectures do not have."""

    architecture: Architecture
    #: name of the machine type in libvirt
    type: str
    #: Debian package with the UEFI firmware
    uefi_package: str
    #: the machine has no BIOS: only UEFI can boot a guest
    only_uefi: bool
    #: model of the emulated CPU, and the features to add to it
    emulated_cpu: str
    emulated_features: tuple[str, ...]
    #: whether QEMU can mark the host's own CPU as migratable
    migratable: bool
    #: video model that works before the guest has loaded a driver
    video: str
    #: whether the machine always has a keyboard and a mouse (PS/2)
    has_keyboard: bool
    #: model of the device that reports a kernel panic; None if there is none
    panic: str | None
    #: first version of libvirt that knows this panic device, as a number in libvirt's format
    panic_since: int = 0


X86_64 = Machine(
    architecture="x86_64",
    type="q35",
    uefi_package="ovmf",
    only_uefi=False,
    # The model that boots fastest, with the features that x86-64-v2 needs in addition: current systems require them.
    emulated_cpu="qemu64",
    emulated_features=("ssse3", "sse4.1", "sse4.2", "popcnt"),
    migratable=True,
    video="vga",
    has_keyboard=True,
    panic="isa",
)
AARCH64 = Machine(
    architecture="aarch64",
    type="virt",
    uefi_package="qemu-efi-aarch64",
    only_uefi=True,
    emulated_cpu="cortex-a57",
    emulated_features=(),
    migratable=False,
    video="virtio",
    has_keyboard=False,
    panic="pvpanic",
    panic_since=9_001_000,
)
MACHINES: Mapping[str, Machine] = {machine.architecture: machine for machine in (X86_64, AARCH64)}
