"""Disk images that must not be used, each with what has to be said of it. Whoever looks at images is shown all."""

import gzip
import lzma
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

MIB = 1024**2
Maker = Callable[[Path], None]


def qcow2(path: Path, *options: str, size: int = 8 * MIB) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), str(size)], check=True)


def patched(offset: int, form: str, *values: int, size: int = 8 * MIB) -> Maker:
    """A good image with other numbers at an offset of its header."""

    def make(path: Path) -> None:
        qcow2(path, size=size)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(struct.pack(form, *values))

    return make


def with_feature(bits: int) -> Maker:
    return patched(72, ">Q", bits)


def with_extension(kind: int, length: int = 8) -> Maker:
    """A good image whose header's first extension is another one."""
    return patched(112, ">II", kind, length)


def based_on(name: str, *options: str) -> Maker:
    """An image that names a backing file; whether that is there nobody has looked."""
    return lambda path: qcow2(path, "-u", *options, "-b", name, "-F", "raw")


def with_data_file(path: Path) -> None:
    qcow2(path, "-o", f"data_file={path}.data,data_file_raw=on")


def with_snapshot(path: Path) -> None:
    qcow2(path)
    subprocess.run(["qemu-img", "snapshot", "-c", "one", str(path)], check=True)


def encrypted(path: Path) -> None:
    """As LUKS inside of qcow2 is marked. qemu-img could make a real one, but first measures how fast the machine is."""
    with_extension(0x0537BE77, 16)(path)
    with path.open("r+b") as file:
        file.seek(32)
        file.write(struct.pack(">I", 2))


def filled(path: Path, *options: str) -> None:
    """A good image with something in it."""
    raw = path.with_suffix(".in")
    raw.write_bytes(b"\x55" * (2 * MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(path)], check=True)
    raw.unlink()


def number(file: bytes | bytearray, offset: int) -> int:
    found: int = struct.unpack_from(">Q", file, offset)[0]
    return found


def without_refcounts(path: Path) -> None:
    filled(path)
    body = bytearray(path.read_bytes())
    block = number(body, number(body, 48))
    body[block : block + 64] = bytes(64)
    path.write_bytes(body)


def tables_astray(path: Path) -> None:
    """Its first table points behind the end of the file."""
    filled(path)
    body = bytearray(path.read_bytes())
    struct.pack_into(">Q", body, number(body, 40), (1 << 63) | 0x7FFF0000)
    path.write_bytes(body)


def leaking(path: Path) -> None:
    """Its second table was lost: what that pointed to belongs to nobody."""
    filled(path)
    body = bytearray(path.read_bytes())
    struct.pack_into(">Q", body, number(body, 40), 0)
    path.write_bytes(body)


def cut_off(path: Path) -> None:
    filled(path)
    path.write_bytes(path.read_bytes()[: 2 * 65536])


def bomb(path: Path, tables: int = 16) -> None:
    """A small file that `qemu-img check` has nothing against, of so many times 512 GiB of the letter U.

    All entries of its first table name the same second one, and all of that name the same packed cluster of 2 MiB.
    """
    cluster = 2 * MIB
    entries = cluster // 8
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    packed = packer.compress(b"U" * cluster) + packer.flush()
    first, second, data = 3 * cluster, 4 * cluster, 5 * cluster
    header = (3, 0, 0, 21, tables * entries * cluster, 0, tables, first, cluster, 1, 0, 0, 0, 0, 0, 6, 104)
    with path.open("wb") as file:
        for at, body in (
            (0, b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQQQQII", *header) + bytes(8)),
            (cluster, struct.pack(">Q", 2 * cluster)),
            (2 * cluster, struct.pack(">6Q", 1, 1, 1, 1, tables, tables * entries)),
            (first, struct.pack(">Q", second) * tables),
            (second, struct.pack(">Q", 1 << 62 | (len(packed) - 1) // 512 << 49 | data) * entries),
            (data, packed.ljust(cluster, b"\0")),
        ):
            file.seek(at)
            file.write(body)


def spoiled(path: Path) -> None:
    """What is packed in it cannot be unpacked: seen by nobody who does not read it."""
    filled(path, "-c")
    body = bytearray(path.read_bytes())
    tables = number(body, 40)
    second = number(body, tables) & 0x00FFFFFFFFFFFE00
    packed = number(body, second) & ((1 << 54) - 1)
    body[packed : packed + 8] = b"\xff" * 8
    path.write_bytes(body)


def foreign(format_: str) -> Maker:
    def make(path: Path) -> None:
        subprocess.run(["qemu-img", "create", "-q", "-f", format_, str(path), str(8 * MIB)], check=True)

    return make


def holding(body: bytes) -> Maker:
    def make(path: Path) -> None:
        path.write_bytes(body)

    return make


BOOTABLE = b"\0" * 510 + b"\x55\xaa" + b"\0" * 512

#: Name, maker, what the refusal says.
HOSTILE: dict[str, tuple[Maker, str]] = {
    "backing file": (based_on("/etc/shadow"), "backing file"),
    "backing file, old version": (based_on("/etc/shadow", "-o", "compat=0.10"), "backing file"),
    "backing json:": (based_on('json:{"driver":"file","filename":"/etc/shadow"}'), "backing file"),
    "backing nbd:": (based_on("nbd://192.0.2.1/disk"), "backing file"),
    "backing ssh:": (based_on("ssh://root@192.0.2.1/etc/shadow"), "backing file"),
    "backing http:": (based_on("http://169.254.169.254/latest"), "backing file"),
    "backing fd": (based_on("/dev/fd/0"), "backing file"),
    "data file": (with_data_file, "its data in another file"),
    "data file named, not marked": (with_extension(0x44415441), "another file for its data"),
    "encrypted": (encrypted, "encrypted"),
    "encrypted, marked only": (patched(32, ">I", 1), "encrypted"),
    "encryption header, not marked": (with_extension(0x0537BE77), "encrypted"),
    "LUKS": (holding(b"LUKS\xba\xbe\0\2" + bytes(1016)), "encrypted"),
    "snapshots": (with_snapshot, "1 snapshots"),
    "dirty": (with_feature(1), "dirty"),
    "corrupt": (with_feature(2), "corrupt"),
    "unknown feature": (with_feature(1 << 5), "not known here"),
    "unknown feature far up": (with_feature(1 << 63), "not known here"),
    "disk of nothing": (patched(24, ">Q", 0), "0 bytes"),
    "disk beyond the sane": (patched(24, ">Q", 65 * 1024**4), "64 TiB"),
    "disk beyond all numbers": (patched(24, ">Q", 2**64 - 1), "64 TiB"),
    "version 1": (patched(4, ">I", 1), "version 1"),
    "version 4": (patched(4, ">I", 4), "version 4"),
    "clusters of 1 byte": (patched(20, ">I", 0), "malformed"),
    "clusters of 2^63 bytes": (patched(20, ">I", 63), "malformed"),
    "refcounts of 2^200 bits": (patched(96, ">I", 200), "malformed"),
    "short header": (patched(100, ">I", 4), "malformed"),
    "endless header": (patched(100, ">I", 2**32 - 1), "malformed"),
    "endless extension": (with_extension(0x6803F857, 2**32 - 1), "do not end"),
    "too large a table": (patched(36, ">I", 2**32 - 1), "malformed"),
    "tables behind the end": (patched(40, ">Q", 1 << 40), "cut off"),
    "refcounts behind the end": (patched(48, ">Q", 1 << 62), "cut off"),
    "too many refcounts": (patched(56, ">I", 2**32 - 1), "cut off"),
    "unknown compression": (patched(72, ">QQQIIB", 8, 0, 0, 4, 112, 77), "qemu-img"),
    "no refcounts": (without_refcounts, "qemu-img check"),
    "tables astray": (tables_astray, "qemu-img"),
    "leaking": (leaking, "qemu-img check"),
    "cut off": (cut_off, "qemu-img|cut off"),
    "header alone": (holding(b"QFI\xfb\0\0\0\3" + bytes(60)), "cut off"),
    "header and noise": (holding(b"QFI\xfb\0\0\0\3" + b"\xa5" * 1016), "image"),
    "vmdk": (foreign("vmdk"), "qemu-img convert -f vmdk"),
    "vdi": (foreign("vdi"), "qemu-img convert -f vdi"),
    "vhdx": (foreign("vhdx"), "qemu-img convert -f vhdx"),
    "vpc": (foreign("vpc"), "qemu-img convert -f vpc"),
    "qed": (holding(b"QED\0" + bytes(508)), "qemu-img convert -f qed"),
    "vmdk descriptor": (holding(b'# Disk DescriptorFile\nRW 16 FLAT "/etc/shadow" 0\n'.ljust(1024)), "vmdk"),
    "gzip": (holding(gzip.compress(BOOTABLE)), "unpack it"),
    "xz": (holding(lzma.compress(BOOTABLE)), "unpack it"),
    "zstd": (holding(b"\x28\xb5\x2f\xfd" + bytes(100)), "unpack it"),
    "empty": (holding(b""), "the file is empty"),
    "odd": (holding(b"x" * 1000), "no whole number of sectors"),
}
