"""A guest of 512 bytes: its boot sector greets on the serial port, then sends back whatever it gets, in upper case."""

import struct
from pathlib import Path

MIB = 1024**2
GREETING = b"nebula echo\r\n"

COM1 = 0x3F8
READY, TAKES = 0x01, 0x20  # bits of the line status register: there is a byte to read; one can be written


def program() -> bytes:
    """16-bit code for 0x7c00. `ah` holds the byte at hand; only a to z are changed."""
    text = 0x7C00 + 0x100
    code = bytearray()

    def emit(*parts: int) -> None:
        code.extend(parts)

    def wait(bit: int) -> None:
        """mov dx, COM1+5; in al, dx; test al, bit; jz back to the `in`"""
        emit(0xBA, *struct.pack("<H", COM1 + 5))
        emit(0xEC, 0xA8, bit, 0x74, 0xFB)

    emit(0x31, 0xC0, 0x8E, 0xD8, 0xFC)  # xor ax, ax; mov ds, ax; cld
    emit(0xBE, *struct.pack("<H", text))  # mov si, text
    greet = len(code)
    emit(0xAC, 0x84, 0xC0, 0x74, 0)  # lodsb; test al, al; jz listen
    jump = len(code) - 1
    emit(0x88, 0xC4)  # mov ah, al
    wait(TAKES)
    emit(0xBA, *struct.pack("<H", COM1), 0x88, 0xE0, 0xEE)  # mov dx, COM1; mov al, ah; out dx, al
    emit(0xEB, greet - len(code) - 2 & 0xFF)  # jmp greet
    code[jump] = len(code) - jump - 1
    listen = len(code)
    wait(READY)
    emit(0xBA, *struct.pack("<H", COM1), 0xEC, 0x88, 0xC4)  # mov dx, COM1; in al, dx; mov ah, al
    emit(0x3C, ord("a"), 0x72, 7, 0x3C, ord("z"), 0x77, 3)  # below a, above z: leave it
    emit(0x80, 0xEC, 0x20)  # sub ah, 0x20
    wait(TAKES)
    emit(0xBA, *struct.pack("<H", COM1), 0x88, 0xE0, 0xEE)
    emit(0xEB, listen - len(code) - 2 & 0xFF)  # jmp listen
    assert len(code) <= 0x100
    sector = bytes(code).ljust(0x100, b"\0") + GREETING + b"\0"
    return sector.ljust(510, b"\0") + b"\x55\xaa"


def write_disk(path: Path) -> Path:
    """A raw disk that boots it."""
    path.write_bytes(program() + bytes(MIB - 512))
    return path
