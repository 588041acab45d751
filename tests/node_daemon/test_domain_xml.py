"""The rendered domain: pinned by a golden file, valid to libvirt, and proof against hostile names."""

from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest

from domain.base import Resources
from node_daemon.domain_xml import NAMESPACE, Tag, VirtType, parse_tag, render
from node_daemon.hypervisor import Boot
from runtime.libvirtd import Libvirt
from tests.node_daemon.documents import wanted

GOLDEN = Path(__file__).with_name("domain.xml")
VM = "7d3c5a52-0000-4000-8000-000000000001"


def boot(**changes: object) -> Boot:
    return Boot(
        wanted(VM, **changes),
        "/var/lib/nebula/node/disks/x/root.qcow2",
        "/var/lib/nebula/node/images/y.qcow2",
        "qcow2",
        "/var/log/x.log",
        "host-boot-id",
    )


def test_golden() -> None:
    assert render(boot(), virt_type="kvm", network="default") == GOLDEN.read_text().rstrip("\n")


def validate(uri: str, virt_type: VirtType) -> None:
    connection = libvirt.open(uri)
    xml = render(boot(), virt_type=virt_type, network="default")
    domain = connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    domain.undefine()
    connection.close()


def test_libvirts_schema_accepts_it() -> None:
    validate("test:///default", "test")


@pytest.mark.qemu
def test_libvirts_schema_and_qemu_driver_accept_it(libvirt_qemu: Libvirt) -> None:
    validate(libvirt_qemu.uri, "qemu")


def test_names_cannot_break_out() -> None:
    evil = "</name><devices/>&\"'"
    root = ET.fromstring(render(boot(name=evil, project=evil), virt_type="qemu", network=evil))
    assert root.findtext("title") == f"{evil}/{evil}"
    assert len(root.findall("devices")) == 1
    source = root.find("devices/interface/source")
    assert source is not None
    assert source.get("network") == evil


def test_the_tag_comes_back() -> None:
    root = ET.fromstring(render(boot(boots=3, epoch=2), virt_type="qemu", network="default"))
    element = root.find(f"metadata/{{{NAMESPACE}}}vm")
    assert element is not None
    assert parse_tag(ET.tostring(element, encoding="unicode")) == Tag(
        3, 2, 1, "host-boot-id", Resources(vcpus=1, memory_mib=64, disk_gib=1)
    )


@pytest.mark.parametrize("text", ["", "<vm", "<vm boots='many'/>"])
def test_what_is_no_tag_of_ours(text: str) -> None:
    with pytest.raises(ValueError):
        parse_tag(text)
