"""A guest of 512 bytes that does what its serial console is told.

`p`: its kernel panics; `r`: it resets itself; `h`: it starts its watchdog, which has two seconds, and hangs.
"""

from pathlib import Path

from tests.node_daemon.documents import MIB

PANIC, RESET, HANG = b"p", b"r", b"h"
#: 16-bit code. The panic device of QEMU is at port 0x505, the keyboard's controller, which can reset, at 0x64. The
#: watchdog is found by its ids in PCI's configuration space; there 0x60 sets its clock, and 0x68 starts it.
CODE = bytes.fromhex(
    "ba fd 03"  # start: mov dx, 0x3fd (status of the serial port)
    "ec a8 01 74 fb"  # until it has a byte
    "ba f8 03 ec"  # which is read
    "3c 70 74 0a"  # p: to the panic
    "3c 72 74 0e"  # r: to the reset
    "3c 68 74 10"  # h: to the watchdog
    "eb e6"  # anything else: to the start
    "ba 05 05 b0 01 ee fa f4"  # out 0x505, 1; stop
    "b0 fe e6 64 fa f4"  # out 0x64, 0xfe; stop
    "66 bb 00 00 00 80"  # mov ebx, 0x80000000 (the first PCI device)
    "66 89 d8 ba f8 0c 66 ef b2 fc 66 ed"  # next: read its ids
    "66 81 c3 00 08 00 00"  # add ebx, 0x800 (the next one)
    "66 3d 86 80 ab 25 75 e5"  # until they are those of the watchdog, 8086:25ab
    "66 81 eb a0 07 00 00"  # sub ebx, 0x7a0 (back, and to 0x60)
    "66 89 d8 b2 f8 66 ef b2 fc b8 04 00 ef"  # 0x60 = 4: the fast clock, and a reboot at the end
    "66 89 d8 b0 68 b2 f8 66 ef b2 fc b0 02 ee fa f4"  # 0x68 = 2: start; stop
)


def write_disk(path: Path) -> Path:
    path.write_bytes(CODE.ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB - 512))
    return path
