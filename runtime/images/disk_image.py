"""Checks the header of a disk image: its format and size, and whether it may be used. Pure; nothing here opens a file.

An image is untrusted input, and QEMU parses it on the host. So an image may only contain the data of one disk: no
backing file or data file, no encryption, no snapshots, no features that this version does not know, nothing incomplete.
The header is checked here before QEMU's own tools read the file, because they would open a data file that the header
names.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["qcow2", "raw"]

#: Number of bytes that are checked; a header with its extensions is much shorter.
HEAD = 64 * 1024
#: Maximum size of a disk; that of a VM has the same limit.
MOST_BYTES = 64 * 1024**4
SECTOR = 512
BOOT_SIGNATURE = b"\x55\xaa"

QCOW = b"QFI\xfb"
#: QEMU's limit for the size of the L1 table.
MOST_L1 = 32 * 1024**2
DIRTY, CORRUPT, DATA_FILE = 1 << 0, 1 << 1, 1 << 2
COMPRESSION, EXTENDED_L2 = 1 << 3, 1 << 4
DATA_FILE_NAME, ENCRYPTION = 0x44415441, 0x0537BE77

CONVERT = "qemu-img convert -O qcow2 OLD NEW makes one that can be used"


class Unusable(Exception):
    """The image may not be used. The text says why, and what to do."""


@dataclass(frozen=True)
class Shape:
    """The format of an image, and the sizes of its file (`size_bytes`) and its disk (`virtual_bytes`)."""

    format: Format
    size_bytes: int
    virtual_bytes: int


#: Beginnings of other formats: (offset, bytes, QEMU's name).
FOREIGN = (
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
)
#: Beginnings of archives: (offset, bytes, name, command that unpacks them).
PACKED = (
    (0, b"\xfd7zXZ\0", "xz", "xz -d"),
    (0, b"\x1f\x8b", "gzip", "gunzip"),
    (0, b"\x28\xb5\x2f\xfd", "zstd", "zstd -d"),
    (0, b"BZh", "bzip2", "bunzip2"),
    (0, b"PK\x03\x04", "zip", "unzip"),
    (257, b"ustar", "tar (an OVA, perhaps)", "tar -xf"),
)


#: Beginnings of text files that are often downloaded instead of an image.
TEXTS = (
    (b"<!doc", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML document"),
    (b"{", "a JSON document"),
    (b"version https://git-lfs", "a pointer of Git LFS"),
)


def look(head: bytes, size: int) -> Shape:
    """Check the first `HEAD` bytes of a file of this size. Raises Unusable."""
    if head.startswith(QCOW):
        return Shape("qcow2", size, _qcow2(head, size))
    if head.startswith(b"LUKS\xba\xbe"):
        raise Unusable("the image is encrypted (LUKS): a guest could not be started from it")
    for offset, magic, name in FOREIGN:
        if head.startswith(magic, offset):
            raise Unusable(f"{name} images cannot be used: qemu-img convert -f {name} -O qcow2 OLD NEW")
    for offset, magic, name, tool in PACKED:
        if head.startswith(magic, offset):
            raise Unusable(f"the image is packed with {name}: unpack it first ({tool})")
    if size == 0:
        raise Unusable("the file is empty (0 bytes): was it written, or fetched, to its end?")
    if size > MOST_BYTES:
        raise Unusable(f"a raw disk of {size} bytes: from 1 byte to {MOST_BYTES >> 40} TiB can be used")
    if (text := _text(head)) and not bootable(head):
        raise Unusable(f"it is {text}, and no disk image: is this the source of the image itself?")
    if not sectors(size):
        raise Unusable(
            f"neither a qcow2 image nor a raw disk: {size} bytes are no whole number of sectors of {SECTOR} bytes; "
            "is it cut off?"
        )
    return Shape("raw", size, size)


def _text(head: bytes) -> str | None:
    """The kind of a text file that is often downloaded instead of an image; None for any other file."""
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for begins, name in TEXTS if start.startswith(begins)), None)


def sectors(size: int) -> bool:
    """Whether a file of this size can be a raw disk."""
    return size % SECTOR == 0 and 0 < size <= MOST_BYTES


def bootable(head: bytes) -> bool:
    """Whether a raw disk has a boot sector: an MBR, or the protective one of a GPT."""
    return head[510:512] == BOOT_SIGNATURE


def _qcow2(head: bytes, size: int) -> int:
    """Check a qcow2 header. Returns the size of the disk. Raises Unusable."""
    if len(head) < 104:
        raise Unusable("the qcow2 header is cut off")
    (version,) = struct.unpack_from(">I", head, 4)
    if version not in (2, 3):
        raise Unusable(f"qcow images of version {version} cannot be used; {CONVERT}")
    backing, _, cluster_bits, virtual, crypt, l1_size, l1_at, refcounts_at, refcount_clusters, snapshots = (
        struct.unpack_from(">QIIQIIQQII", head, 8)
    )
    features, refcount_order, header = 0, 4, 72
    if version == 3:
        features, _, _, refcount_order, header = struct.unpack_from(">QQQII", head, 72)
    if backing:
        raise Unusable(f"the image is based on another file (backing file); {CONVERT}")
    if features & DATA_FILE:
        raise Unusable(f"the image keeps its data in another file; {CONVERT}")
    if crypt:
        raise Unusable("the image is encrypted: a guest could not be started from it")
    if features & (DIRTY | CORRUPT):
        raise Unusable(
            f"the image is marked {'corrupt' if features & CORRUPT else 'dirty'}: the program that wrote it did not "
            "finish; qemu-img check -r all may repair it"
        )
    if unknown := features & ~(COMPRESSION | EXTENDED_L2):
        raise Unusable(f"the image needs features that are not known here (incompatible bits {unknown:#x}); {CONVERT}")
    if snapshots:
        raise Unusable(f"the image holds {snapshots} snapshots; {CONVERT}")
    if not 0 < virtual <= MOST_BYTES:
        raise Unusable(f"its disk has {virtual} bytes: from 1 byte to {MOST_BYTES >> 40} TiB can be used")
    sane = 9 <= cluster_bits <= 21 and refcount_order <= 6 and 72 <= header <= len(head) and l1_size * 8 <= MOST_L1
    if not sane:
        raise Unusable("the qcow2 header is malformed: get the image again from its source")
    if max(l1_at + l1_size * 8, refcounts_at + (refcount_clusters << cluster_bits)) > size:
        raise Unusable("the image is cut off: its tables are after its end; get it again from its source")
    for kind in _extensions(head[: min(len(head), 1 << cluster_bits)], header):
        if kind == DATA_FILE_NAME:
            raise Unusable(f"the image names another file for its data; {CONVERT}")
        if kind == ENCRYPTION:
            raise Unusable("the image is encrypted: a guest could not be started from it")
    return int(virtual)


def _extensions(head: bytes, at: int) -> Iterator[int]:
    """The kinds of the header's extensions, in their order. Raises Unusable if they do not end."""
    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        if kind == 0:
            return
        yield kind
        at += 8 + -(-length // 8) * 8
    raise Unusable("the qcow2 header is malformed: its extensions do not end; get the image again from its source")


def objection(info: Mapping[str, Any], shape: Shape) -> str | None:
    """The first contradiction between the output of `qemu-img info` and the header; None if there is none."""
    special = info.get("format-specific")
    data = special.get("data") if isinstance(special, dict) else None
    details: dict[str, Any] = data if isinstance(data, dict) else {}
    found = {
        "it has another format": info.get("format") != shape.format,
        "it has another size": info.get("virtual-size") != shape.virtual_bytes,
        "it is based on another file": "backing-filename" in info or "full-backing-filename" in info,
        "it keeps its data in another file": "data-file" in details,
        "it is encrypted": bool(info.get("encrypted")) or "encrypt" in details,
        "it holds snapshots": bool(info.get("snapshots")),
        "it is dirty": bool(info.get("dirty-flag")),
        "it is corrupt": bool(details.get("corrupt")),
    }
    return next((text for text, so in found.items() if so), None)
