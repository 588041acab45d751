"""The machine that a guest gets, by what CPUs its node has: what differs between architectures in a domain's XML."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from domain.contract import Architecture

VirtType = Literal["kvm", "qemu", "test"]


@dataclass(frozen=True)
class Machine:
    """One architecture's machine type, and the devices that are not the same on all of them."""

    architecture: Architecture
    #: as libvirt calls it
    type: str
    #: Debian's package of its UEFI
    uefi_package: str
    #: whether nothing else can start a guest: there is no BIOS
    only_uefi: bool
    #: the CPU under emulation, and what it needs beyond that
    emulated_cpu: str
    emulated_features: tuple[str, ...]
    #: whether QEMU knows of the host's own CPU that it can be migrated
    migratable: bool
    #: a display that works before any driver of the guest is loaded
    video: str
    #: whether there are a keyboard and a mouse that nobody asked for (PS/2)
    has_keyboard: bool
    #: to which a guest says that its kernel panicked; None where there is none
    panic: str | None
    #: the first libvirt that knows this panic device, as libvirt counts its versions
    panic_since: int = 0


X86_64 = Machine(
    architecture="x86_64",
    type="q35",
    uefi_package="ovmf",
    only_uefi=False,
    # The model that boots fastest, and what x86-64-v2 asks for beyond it, which current systems need.
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
