"""A guest of 512 bytes that does what its serial console is told: `p`: its kernel panics; `r`: it resets itself."""

from pathlib import Path

from tests.node_daemon.documents import MIB

PANIC, RESET = b"p", b"r"
#: 16-bit code. The panic device of QEMU is at port 0x505, the keyboard's controller, which can reset, at 0x64.
CODE = bytes.fromhex(
    "ba fd 03"  # start: mov dx, 0x3fd (status of the serial port)
    "ec a8 01 74 fb"  # until it has a byte
    "ba f8 03 ec"  # which is read
    "3c 70 74 06"  # p: to the panic
    "3c 72 74 0a"  # r: to the reset
    "eb ea"  # anything else: to the start
    "ba 05 05 b0 01 ee fa f4"  # out 0x505, 1; stop
    "b0 fe e6 64 fa f4"  # out 0x64, 0xfe; stop
)


def write_disk(path: Path) -> Path:
    path.write_bytes(CODE.ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB - 512))
    return path
