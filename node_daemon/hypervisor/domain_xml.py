"""The libvirt domain XML of a VM, as a pure function of its document; and the tag that marks a domain as ours."""

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from domain.base import Resources
from domain.contract import NOWHERE, Firmware, Place, SeedMedium, Wanted, Watchdog
from node_daemon.hypervisor.hypervisor import Boot, Overlay
from node_daemon.hypervisor.machine import AARCH64, X86_64, Machine, VirtType

#: XML namespace of our tag in a domain's metadata. A domain without the tag is foreign.
NAMESPACE = "urn:nebula:node:1"
PREFIX = "nebula"
ET.register_namespace(PREFIX, NAMESPACE)

#: Seconds between two reports of the guest about its memory use.
BALLOON_PERIOD = "10"

#: Size of QEMU's cache of translated code without KVM. By default it takes up to 1 GiB in addition to the memory of the
#: guest, and a guest that reboots waits for minutes while QEMU empties it.
TRANSLATED_MIB = "128"

#: The disks of a domain are vda, vdb and so on; vdz is its seed disk.
LETTERS = "abcdefghijklmnopqrstuvwxy"

#: Maximum number of CPUs on x86 without interrupt remapping.
MOST_PLAIN_CPUS = 255


#: The SMBIOS serial number that makes cloud-init use the data source NoCloud over the network.
FETCHES = "ds=nocloud;dsmode=net"


@dataclass(frozen=True)
class Tag:
    """The origin of a domain, stored in its metadata: the document and the boot of the host that it was started in."""

    boots: int
    epoch: int
    generation: int
    host_boot: str
    size: Resources | None = None
    disk: int = 1
    place: Place = NOWHERE


def domain_name(vm: str) -> str:
    return f"nebula-{vm}"


def parse_tag(xml: str) -> Tag:
    """Read the tag in a domain's metadata. Raises ValueError if it is malformed."""
    try:
        element = ET.fromstring(xml)  # noqa: S314  (libvirt's own)
    except ET.ParseError as error:
        raise ValueError(f"not XML: {error}") from error
    return Tag(
        boots=int(element.get("boots", "0")),
        epoch=int(element.get("epoch", "0")),
        generation=int(element.get("generation", "0")),
        host_boot=element.get("host-boot", ""),
        size=_size(element),
        disk=int(element.get("disk", "1")),
        place=_place(element.get("place", "0-0")),
    )


def _place(text: str) -> Place:
    stream, _, position = text.partition("-")
    return Place(int(stream), int(position or 0))


def _size(element: ET.Element) -> Resources | None:
    """The size of the domain; None if an older version wrote the tag without it."""
    texts = [element.get(name) for name in ("vcpus", "memory-mib", "disk-gib")]
    if None in texts:
        return None
    vcpus, memory_mib, disk_gib = (int(text or 0) for text in texts)
    return Resources(vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib)


def with_host_boot(tag: str, host_boot: str) -> str:
    """A copy of a domain's tag, as XML, with another boot id of the host."""
    attributes = {**ET.fromstring(tag).attrib, "host-boot": host_boot}  # noqa: S314  (libvirt's own)
    return ET.tostring(ET.Element("vm", attributes), encoding="unicode")


def definable(xml: str) -> str:
    """The XML of a running domain, changed so that libvirt accepts it for `defineXML`.

    libvirt (9.0) shows both the UEFI files that it chose and the features that it chose them by, but accepts only one.
    """
    if "<firmware>" not in xml:
        return xml
    domain = ET.fromstring(xml)  # noqa: S314  (libvirt's own)
    system = domain.find("os")
    if system is not None and system.get("firmware") is None and (features := system.find("firmware")) is not None:
        system.remove(features)
    return ET.tostring(domain, encoding="unicode")


def render(
    boot: Boot,
    *,
    virt_type: VirtType,
    network: str,
    machine: Machine = X86_64,
    tap: str | None = None,
) -> str:
    """The domain XML for libvirt. `tap`: the name of the guest's interface on the host; None: libvirt chooses it.

    - All devices are virtio on PCI Express, except the display of x86, which works before the guest loads a driver.
    - cloud-init finds the URL of its data source on the seed disk. Nothing of it is in the command line of QEMU, in the
      XML or in libvirt's logs, which other users of the host can read. Newer versions also need the serial number: they
      fetch from a URL only if it names this data source.
    - virtlogd writes the console to a file and limits its size. It continues when libvirtd or this daemon ends.
    - The display listens on no socket: libvirt opens a connection for each viewer.
    - A kernel panic is reported by the panic device: libvirt then shows the domain as crashed.
    - A watchdog does nothing until the guest has started it.
    - libvirt's confinement of QEMU (users, seccomp, labels) stays as it is.
    """
    wanted = boot.wanted
    domain = ET.Element("domain", type=virt_type)
    _text(domain, "name", domain_name(wanted.vm))
    _text(domain, "uuid", wanted.vm)
    _text(domain, "title", f"{wanted.project}/{wanted.name}")
    ET.SubElement(
        ET.SubElement(domain, "metadata"),
        f"{{{NAMESPACE}}}vm",
        {
            "project": wanted.project,
            "name": wanted.name,
            "epoch": str(wanted.epoch),
            "generation": str(wanted.generation),
            **({"place": f"{wanted.place.stream}-{wanted.place.position}"} if wanted.place.position else {}),
            "boots": str(wanted.boots),
            "host-boot": boot.host_boot,
            "vcpus": str(wanted.vcpus),
            "memory-mib": str(wanted.memory_mib),
            "disk-gib": str(wanted.disk_gib),
            "disk": str(wanted.disk),
        },
    )
    _text(domain, "memory", str(wanted.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(wanted.vcpus))
    _firmware(domain, wanted, virt_type, machine)
    _features(domain, wanted.vcpus, virt_type, machine)
    _cpu(domain, wanted.vcpus, virt_type, machine)
    ET.SubElement(domain, "clock", offset="utc")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    _devices(domain, boot, network, machine, tap)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode")


def needs_uefi(wanted: Wanted, machine: Machine) -> bool:
    """Whether the guest boots by UEFI: its image requires it, or its machine has no BIOS."""
    image = wanted.boot_image
    return machine.only_uefi or (image is not None and image.firmware is Firmware.UEFI)


def fetches(wanted: Wanted) -> bool:
    """Whether the guest fetches its data, because its seed disk has only their URL."""
    image = wanted.boot_image
    return image is not None and image.seed is SeedMedium.HTTP


def _firmware(domain: ET.Element, wanted: Wanted, virt_type: VirtType, machine: Machine) -> None:
    """libvirt chooses the UEFI files by features: without Secure Boot, because common images may
    not be signed for it.
    """
    system = ET.SubElement(domain, "os")
    if virt_type == "test":
        _text(system, "type", "hvm")
    else:
        _text(system, "type", "hvm", arch=machine.architecture, machine=machine.type)
        if needs_uefi(wanted, machine):
            system.set("firmware", "efi")
            features = ET.SubElement(system, "firmware")
            ET.SubElement(features, "feature", enabled="no", name="enrolled-keys")
            ET.SubElement(features, "feature", enabled="no", name="secure-boot")
    ET.SubElement(system, "boot", dev="hd")
    ET.SubElement(system, "smbios", mode="sysinfo")
    sysinfo = ET.SubElement(ET.SubElement(domain, "sysinfo", type="smbios"), "system")
    _text(sysinfo, "entry", "Nebula", name="manufacturer")
    _text(sysinfo, "entry", FETCHES if fetches(wanted) else wanted.vm, name="serial")
    _text(sysinfo, "entry", wanted.vm, name="uuid")


def _features(domain: ET.Element, vcpus: int, virt_type: VirtType, machine: Machine) -> None:
    """ACPI, the cache for translated code, and the interrupt controller. On ARM it has the host's version under KVM; on
    x86 QEMU emulates it for more than MOST_PLAIN_CPUS CPUs.
    """
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    if virt_type == "qemu":
        _text(ET.SubElement(features, "tcg"), "tb-cache", TRANSLATED_MIB, unit="MiB")
    if machine.architecture == AARCH64.architecture:
        ET.SubElement(features, "gic", {"version": "3"} if virt_type == "qemu" else {})
        return
    ET.SubElement(features, "apic")
    if vcpus > MOST_PLAIN_CPUS:
        ET.SubElement(features, "ioapic", driver="qemu")


def _cpu(domain: ET.Element, vcpus: int, virt_type: VirtType, machine: Machine) -> None:
    """The host's CPU under KVM, else the machine's model. All cores are in one socket: some systems use few sockets."""
    cpu = ET.SubElement(domain, "cpu")
    if virt_type == "kvm":
        cpu.attrib.update({"mode": "host-passthrough"} | ({"migratable": "on"} if machine.migratable else {}))
    elif virt_type == "qemu":
        cpu.attrib.update(mode="custom", match="exact", check="none")
        _text(cpu, "model", machine.emulated_cpu, fallback="forbid")
    ET.SubElement(cpu, "topology", sockets="1", cores=str(vcpus), threads="1")
    if virt_type == "qemu":
        for feature in machine.emulated_features:
            ET.SubElement(cpu, "feature", policy="require", name=feature)


def _devices(domain: ET.Element, boot: Boot, network: str, machine: Machine, tap: str | None) -> None:
    devices = ET.SubElement(domain, "devices")

    for letter, overlay in zip(LETTERS, (Overlay(boot.disk, boot.base, boot.base_format), *boot.further), strict=False):
        _overlay(devices, overlay, f"vd{letter}")
    if boot.seed:
        _seed(devices, boot.seed)

    ET.SubElement(devices, "controller", type="usb", model="none")

    interface = ET.SubElement(devices, "interface", type="network")
    ET.SubElement(interface, "mac", address=boot.wanted.mac)
    ET.SubElement(interface, "source", network=network)
    if tap is not None:
        ET.SubElement(interface, "target", dev=tap)
    ET.SubElement(interface, "model", type="virtio")

    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "log", file=boot.console, append="on")
    ET.SubElement(serial, "target", port="0")

    agent = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(agent, "target", type="virtio", name="org.qemu.guest_agent.0")

    if not machine.has_keyboard:
        ET.SubElement(devices, "input", type="keyboard", bus="virtio")
    ET.SubElement(devices, "input", type="tablet", bus="virtio")

    display = ET.SubElement(devices, "graphics", type="vnc")
    ET.SubElement(display, "listen", type="none")

    ET.SubElement(ET.SubElement(devices, "video"), "model", type=machine.video)

    balloon = ET.SubElement(devices, "memballoon", model="virtio")
    ET.SubElement(balloon, "stats", period=BALLOON_PERIOD)

    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")

    if machine.panic is not None:
        ET.SubElement(devices, "panic", model=machine.panic)

    if boot.wanted.watchdog is not Watchdog.DISABLED:
        ET.SubElement(devices, "watchdog", model="i6300esb", action=boot.wanted.watchdog.value)

    if machine.architecture == X86_64.architecture and boot.wanted.vcpus > MOST_PLAIN_CPUS:
        iommu = ET.SubElement(devices, "iommu", model="intel")
        ET.SubElement(iommu, "driver", intremap="on", eim="on")


def _seed(devices: ET.Element, file: str) -> None:
    """The seed disk, which cloud-init finds by its label. It is virtio too: kernels of cloud images
    know few bus types.
    """
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=file)
    ET.SubElement(disk, "backingStore")
    ET.SubElement(disk, "target", dev="vdz", bus="virtio")
    ET.SubElement(disk, "readonly")


def _overlay(devices: ET.Element, overlay: Overlay, device: str) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="qcow2", discard="unmap")
    ET.SubElement(disk, "source", file=overlay.disk)
    _backing(disk, overlay)
    ET.SubElement(disk, "target", dev=device, bus="virtio")


def _backing(disk: ET.Element, overlay: Overlay) -> None:
    """The backing image. It is named here so that the contents of the disk do not decide which file QEMU opens.

    libvirt must not change its owner to QEMU's user: otherwise one guest could damage the image of all guests.
    """
    backing = ET.SubElement(disk, "backingStore", type="file")
    ET.SubElement(backing, "format", type=overlay.base_format)
    source = ET.SubElement(backing, "source", file=overlay.base)
    ET.SubElement(source, "seclabel", model="dac", relabel="no")
    ET.SubElement(backing, "backingStore")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
