"""Wanted documents and base images for the tests of the node daemon."""

import hashlib
import subprocess
import uuid
from pathlib import Path
from typing import Any

from domain.contract import Desired, ImageSource, Wanted

NODE = "n1"
MIB = 1024**2


def new_vm() -> str:
    return str(uuid.uuid4())


def mac_of(vm: str) -> str:
    return "52:54:00:" + ":".join(vm[i : i + 2] for i in (0, 2, 4))


def wanted(vm: str, **changes: Any) -> Wanted:
    """A VM that is to be on: 64 MiB, 1 GiB disk, boots 1, generation 1."""
    values: dict[str, Any] = {
        "vm": vm,
        "project": "acme",
        "name": "web",
        "node": NODE,
        "epoch": 1,
        "generation": 1,
        "desired": Desired.ON,
        "boots": 1,
        "vcpus": 1,
        "memory_mib": 64,
        "disk_gib": 1,
        "seed_url": "http://192.168.122.1:8775/seed/secret/",
        "mac": mac_of(vm),
    }
    return Wanted(**{**values, **changes})


def raw_image(path: Path, size: int = MIB, fill: bytes = b"nebula") -> ImageSource:
    """An image of no operating system: `size` bytes, most of them the same.

    In its place in one step: a daemon may just read the one that was made there before.
    """
    new = path.with_name(f".{path.name}.new")
    new.write_bytes((fill * (size // len(fill) + 1))[:size])
    new.replace(path)
    return source_of(path, "raw", size)


def qcow2_image(path: Path, size: int = MIB, *options: str) -> ImageSource:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), str(size)], check=True)
    return source_of(path, "qcow2", size)


def source_of(path: Path, format_: str, virtual: int, at: str | None = None) -> ImageSource:
    content = path.read_bytes()
    return ImageSource(
        image="base",
        source=at or str(path),
        sha256=hashlib.sha256(content).hexdigest(),
        format=format_,
        size_bytes=len(content),
        virtual_size_bytes=virtual,
    )


#: The smallest operating system that hears a power button: it enables the button's event, sleeps until the event's
#: status is set (PM1 registers of q35, from port 0x600 on), and then switches the machine off (sleep state 5).
POWER_BUTTON = bytes.fromhex("ba0206 b80001 ef fb  f4 ba0006 ed f6c401 74f6  ba0406 b80020 ef ebfe")


def boot_disk() -> bytes:
    """A raw disk of one MiB with nothing on it but that."""
    return POWER_BUTTON.ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB - 512)
