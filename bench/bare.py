"""A domain by bare libvirt-python: the platform's own XML with another name, disk and address."""

import subprocess
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path

import libvirt


class Bare:
    """Made like the domain whose XML is given, in the home of the same platform."""

    def __init__(self, home: Path, connection: libvirt.virConnect, like: str) -> None:
        self._disk = home / f"bare-{uuid.uuid4().hex}.qcow2"
        self._base = next(iter((home / "node" / "images").glob("*.raw")))
        self._connection = connection
        self._xml = self._described(like)
        self._domain: libvirt.virDomain | None = None

    def make(self) -> None:
        """Overlay, define, create. Blocks."""
        overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self._base), str(self._disk), "1G"]
        subprocess.run(overlay, check=True)
        self._domain = self._connection.defineXML(self._xml)
        self._domain.create()

    def remove(self) -> None:
        if self._domain is not None:
            self._domain.destroy()
            self._domain.undefine()
        self._disk.unlink()

    def _described(self, like: str) -> str:
        root = ET.fromstring(like)
        for devices in root.findall("devices"):
            for seed in devices.findall("disk[readonly]"):
                devices.remove(seed)
        for name in ("uuid", "seclabel", "metadata", "sysinfo"):
            for element in root.findall(name):
                root.remove(element)
        root.attrib.pop("id", None)
        for parent, child in (("os", "smbios"), ("devices/disk", "backingStore")):
            for element in root.findall(parent):
                for unwanted in element.findall(child):
                    element.remove(unwanted)
        for element in root.findall("name"):
            element.text = self._disk.stem
        for source in root.findall("devices/disk/source"):
            source.set("file", str(self._disk))
        for log in root.findall("devices/*/log"):
            log.set("file", str(self._disk.with_suffix(".log")))
        for source in root.findall("devices/channel/source"):
            source.attrib.pop("path", None)
        for interface in root.findall("devices/interface"):
            for unwanted in (*interface.findall("mac"), *interface.findall("target")):
                interface.remove(unwanted)
        return ET.tostring(root, encoding="unicode")
