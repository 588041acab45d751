"""What a disk image says of itself in its first bytes, and why it may not be used. Pure; nothing here opens a file.

An image is foreign input that QEMU will parse with the rights of a host. So whoever registers one gets none of what its
formats offer beyond the bytes of one disk: no other files behind it, no encryption, no snapshots, nothing that this
version of the platform does not know, nothing half written. That is judged here, from the header alone, before QEMU's
own tools see the file: they would open a data file that a header names just to describe the image.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["qcow2", "raw"]

#: Bytes that are looked at: a header with its extensions is far shorter.
HEAD = 64 * 1024
#: The largest disk there can be: a VM's may have as much.
MOST_BYTES = 64 * 1024**4
SECTOR = 512
BOOT_SIGNATURE = b"\x55\xaa"

QCOW = b"QFI\xfb"
#: QEMU's own limit on the table of tables.
MOST_L1 = 32 * 1024**2
DIRTY, CORRUPT, DATA_FILE = 1 << 0, 1 << 1, 1 << 2
COMPRESSION, EXTENDED_L2 = 1 << 3, 1 << 4
DATA_FILE_NAME, ENCRYPTION = 0x44415441, 0x0537BE77

CONVERT = "qemu-img convert -O qcow2 OLD NEW makes one that can be used"


class Unusable(Exception):
    """The image may not be used; the text says why, and what would help."""


@dataclass(frozen=True)
class Shape:
    """What an image is. `size_bytes` is the file's, `virtual_bytes` the disk's."""

    format: Format
    size_bytes: int
    virtual_bytes: int


#: What other formats begin with: (offset, bytes, QEMU's name).
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
#: What archives begin with, and what unpacks them.
PACKED = (
    (0, b"\xfd7zXZ\0", "xz", "xz -d"),
    (0, b"\x1f\x8b", "gzip", "gunzip"),
    (0, b"\x28\xb5\x2f\xfd", "zstd", "zstd -d"),
    (0, b"BZh", "bzip2", "bunzip2"),
    (0, b"PK\x03\x04", "zip", "unzip"),
    (257, b"ustar", "tar (an OVA, perhaps)", "tar -xf"),
)


#: What is found in the place of an image, by how it begins.
TEXTS = (
    (b"<!doc", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML document"),
    (b"{", "a JSON document"),
    (b"version https://git-lfs", "a pointer of Git LFS"),
)


def look(head: bytes, size: int) -> Shape:
    """What the first `HEAD` bytes of a file of this size say. Raises Unusable."""
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
    """What a file of text is, where it is one that is found in the place of an image."""
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for begins, name in TEXTS if start.startswith(begins)), None)


def sectors(size: int) -> bool:
    """Whether a file of this size can be a raw disk."""
    return size % SECTOR == 0 and 0 < size <= MOST_BYTES


def bootable(head: bytes) -> bool:
    """Whether a raw disk has a boot sector: an MBR, or the protective one of a GPT."""
    return head[510:512] == BOOT_SIGNATURE


def _qcow2(head: bytes, size: int) -> int:
    """The size of the disk. Raises Unusable."""
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
            f"the image is marked {'corrupt' if features & CORRUPT else 'dirty'}: whoever wrote it did not come to the "
            "end; qemu-img check -r all may mend it"
        )
    if unknown := features & ~(COMPRESSION | EXTENDED_L2):
        raise Unusable(f"the image needs features that are not known here (incompatible bits {unknown:#x}); {CONVERT}")
    if snapshots:
        raise Unusable(f"the image holds {snapshots} snapshots; {CONVERT}")
    if not 0 < virtual <= MOST_BYTES:
        raise Unusable(f"its disk has {virtual} bytes: from 1 byte to {MOST_BYTES >> 40} TiB can be used")
    sane = 9 <= cluster_bits <= 21 and refcount_order <= 6 and 72 <= header <= len(head) and l1_size * 8 <= MOST_L1
    if not sane:
        raise Unusable("the qcow2 header makes no sense")
    if max(l1_at + l1_size * 8, refcounts_at + (refcount_clusters << cluster_bits)) > size:
        raise Unusable("the image is cut off: its tables lie behind its end")
    for kind in _extensions(head[: min(len(head), 1 << cluster_bits)], header):
        if kind == DATA_FILE_NAME:
            raise Unusable(f"the image names another file for its data; {CONVERT}")
        if kind == ENCRYPTION:
            raise Unusable("the image is encrypted: a guest could not be started from it")
    return int(virtual)


def _extensions(head: bytes, at: int) -> Iterator[int]:
    """The kinds of the header's extensions, in their order. Raises Unusable when they have no end."""
    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        if kind == 0:
            return
        yield kind
        at += 8 + -(-length // 8) * 8
    raise Unusable("the qcow2 header makes no sense: its extensions have no end")


def objection(info: Mapping[str, Any], shape: Shape) -> str | None:
    """What `qemu-img info` tells that does not fit what was seen in the header; None when all is well."""
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
