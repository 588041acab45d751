"""The rendered domain: pinned by golden files, valid to libvirt, and proof against hostile names.

`python -m tests.node_daemon.test_domain_xml` writes the golden files anew; `git diff` then shows what has changed.
"""

import contextlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest

from domain.base import Resources
from domain.contract import NOWHERE, Firmware, ImageSource, Place, SeedMedium, Watchdog
from domain.contract.wanted import Rescue
from node_daemon.hypervisor.domain_xml import NAMESPACE, Tag, parse_tag, render
from node_daemon.hypervisor.hypervisor import Boot, Overlay
from node_daemon.hypervisor.libvirt_adapter import NAMES
from node_daemon.hypervisor.machine import AARCH64, X86_64, Machine, VirtType
from runtime.local.libvirtd import Libvirt
from tests.node_daemon.documents import wanted

GOLDENS = Path(__file__).with_name("goldens")
VM = "7d3c5a52-0000-4000-8000-000000000001"
IMAGE = ImageSource(
    image="base", source="/y", sha256="0" * 64, format="qcow2", size_bytes=1, virtual_size_bytes=1, firmware="bios"
)
UEFI = IMAGE.model_copy(update={"firmware": Firmware.UEFI})


def boot(**changes: object) -> Boot:
    return Boot(
        wanted(VM, **{"image": IMAGE, **changes}),
        "/var/lib/nebula/node/disks/x/root.qcow2",
        "/var/lib/nebula/node/images/y.qcow2",
        "qcow2",
        "/var/log/x.log",
        "host-boot-id",
        "/var/lib/nebula/node/disks/x/cidata.iso",
    )


OLD_AARCH64 = replace(AARCH64, panic=None)

#: By file: the type of the domain, what it is made from, and the machine.
CASES: dict[str, tuple[VirtType, Boot, Machine]] = {
    "plain": ("kvm", boot(), X86_64),
    "emulated": ("qemu", boot(), X86_64),
    "uefi": ("qemu", boot(image=UEFI), X86_64),
    "seed-disk": ("qemu", boot(image=IMAGE.model_copy(update={"seed": SeedMedium.DISK})), X86_64),
    "rescue": (
        "qemu",
        replace(
            boot(rescue=Rescue(image=UEFI, disk=2)),
            disk="/var/lib/nebula/node/disks/x/rescue-2.qcow2",
            further=(Overlay("/var/lib/nebula/node/disks/x/root.qcow2", "/var/lib/nebula/node/images/z.raw", "raw"),),
        ),
        X86_64,
    ),
    "many-vcpus": ("kvm", boot(vcpus=256, memory_mib=65536), X86_64),
    "watchdog": ("qemu", boot(watchdog=Watchdog.RESET), X86_64),
    "test-driver": ("test", boot(image=UEFI), X86_64),
    "aarch64": ("kvm", boot(image=UEFI), AARCH64),
    "aarch64-old-libvirt": ("kvm", boot(vcpus=256, memory_mib=65536), OLD_AARCH64),
    "aarch64-emulated": ("qemu", boot(), OLD_AARCH64),
}
#: Of those, what the emulator of any host takes.
EMULATED = [name for name, (virt_type, _, machine) in CASES.items() if virt_type == "qemu" and machine is X86_64]
#: Those of an ARM.
OF_ARM = [name for name, (_, _, machine) in CASES.items() if machine is not X86_64]
#: Those that libvirt 9.0 knows all devices of.
KNOWN_TO_OLD = [name for name, (_, _, machine) in CASES.items() if machine is not AARCH64]


def rendered(name: str) -> str:
    virt_type, made_from, machine = CASES[name]
    tap = None if virt_type == "test" else NAMES.tap(made_from.wanted.vm)
    return render(made_from, virt_type=virt_type, network="default", machine=machine, tap=tap) + "\n"


def golden(name: str) -> Path:
    return GOLDENS / f"{name}.xml"


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    assert rendered(name) == golden(name).read_text()


def test_no_golden_is_forgotten() -> None:
    assert {path.stem for path in GOLDENS.iterdir()} == set(CASES)


@pytest.mark.skipif(not shutil.which("xmllint"), reason="virt-xml-validate needs xmllint")
@pytest.mark.parametrize("name", CASES if libvirt.getVersion() >= AARCH64.panic_since else KNOWN_TO_OLD)
def test_libvirts_schema_accepts_it(name: str) -> None:
    done = subprocess.run(["virt-xml-validate", golden(name), "domain"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def define(uri: str, name: str) -> None:
    connection = libvirt.open(uri)
    domain = connection.defineXMLFlags(golden(name).read_text(), libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    with contextlib.suppress(libvirt.libvirtError):  # tests beside this one tidy up the host's domains too
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM if uri.startswith("qemu") else 0)
    connection.close()


def test_the_test_driver_accepts_it() -> None:
    define("test:///default", "test-driver")


@pytest.mark.qemu
@pytest.mark.parametrize("name", EMULATED)
def test_the_qemu_driver_accepts_it(libvirt_qemu: Libvirt, name: str) -> None:
    define(libvirt_qemu.uri, name)


@pytest.mark.parametrize("name", OF_ARM)
def test_a_guest_on_an_arm_gets_nothing_of_a_pc(name: str) -> None:
    """Whatever its image says: UEFI, the machine `virt`, a keyboard that is no PS/2, a display that is no VGA."""
    root = ET.fromstring(rendered(name))
    system = root.find("os")
    assert system is not None
    kind = system.find("type")
    assert kind is not None
    assert (system.get("firmware"), kind.get("arch"), kind.get("machine")) == ("efi", "aarch64", "virt")
    assert {each.tag for each in root.iterfind("features/*")} - {"tcg"} == {"acpi", "gic"}
    assert {each.get("bus") for each in root.iterfind("devices/input")} == {"virtio"}
    assert {each.get("type") for each in root.iterfind("devices/input")} == {"keyboard", "tablet"}
    assert {each.get("bus") for each in root.iterfind("devices/disk/target")} == {"virtio"}
    assert {each.get("type") for each in root.iterfind("devices/video/model")} == {"virtio"}
    assert {each.get("model") for each in root.iterfind("devices/panic")} <= {"pvpanic"}
    assert root.find("devices/iommu") is None
    assert "qemu64" not in rendered(name)
    assert "migratable" not in rendered(name)


@pytest.mark.parametrize("name", CASES)
def test_nobody_can_reach_a_display_past_libvirt(name: str) -> None:
    root = ET.fromstring(rendered(name))
    (display,) = root.findall("devices/graphics")
    assert display.attrib == {"type": "vnc"}, "no port, no password"
    assert [listen.attrib for listen in display] == [{"type": "none"}]
    assert root.find("seclabel") is None, "QEMU stays confined as libvirt is set up to"


@pytest.mark.parametrize("action", Watchdog)
def test_a_watchdog_is_there_where_it_is_asked_for(action: Watchdog) -> None:
    root = ET.fromstring(render(boot(watchdog=action), virt_type="kvm", network="default"))
    found = [device.attrib for device in root.findall("devices/watchdog")]
    assert found == ([] if action is Watchdog.DISABLED else [{"model": "i6300esb", "action": action.value}])


def test_names_cannot_break_out() -> None:
    evil = "</name><devices/>&\"'"
    made = boot()
    unchecked = made.wanted.model_copy(update={"name": evil, "project": evil})
    root = ET.fromstring(render(replace(made, wanted=unchecked), virt_type="qemu", network=evil))
    assert root.findtext("title") == f"{evil}/{evil}"
    assert len(root.findall("devices")) == 1
    source = root.find("devices/interface/source")
    assert source is not None
    assert source.get("network") == evil


def test_the_tag_comes_back() -> None:
    root = ET.fromstring(render(boot(boots=3, epoch=2, place=Place(7, 5)), virt_type="qemu", network="default"))
    element = root.find(f"metadata/{{{NAMESPACE}}}vm")
    assert element is not None
    tag = Tag(3, 2, 1, "host-boot-id", Resources(vcpus=1, memory_mib=64, disk_gib=1), place=Place(7, 5))
    assert parse_tag(ET.tostring(element, encoding="unicode")) == tag
    del element.attrib["place"]
    assert parse_tag(ET.tostring(element, encoding="unicode")) == replace(tag, place=NOWHERE), "one of before"


@pytest.mark.parametrize("text", ["", "<vm", "<vm boots='many'/>"])
def test_what_is_no_tag_of_ours(text: str) -> None:
    with pytest.raises(ValueError):
        parse_tag(text)


if __name__ == "__main__":
    for case in CASES:
        golden(case).write_text(rendered(case))
