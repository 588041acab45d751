"""A guest of 512 bytes: its boot sector greets on the serial port, then sends back whatever it gets, in upper case."""

import struct
from pathlib import Path

MIB = 1024**2
GREETING = b"nebula echo\r\n"

COM1 = 0x3F8
READY, TAKES = 0x01, 0x20  # bits of the line status register: there is a byte to read; one can be written


def program() -> bytes:
    """16-bit code for 0x7c00. `ah` holds the byte at hand; only a to z are changed.

    Between bytes it sleeps. The port interrupts (IRQ 4) when there is one; the BIOS acknowledges that, and no more.
    """
    text = 0x7C00 + 0x100
    code = bytearray()

    def emit(*parts: int) -> None:
        code.extend(parts)

    def status(bit: int) -> None:
        """mov dx, COM1+5; in al, dx; test al, bit"""
        emit(0xBA, *struct.pack("<H", COM1 + 5), 0xEC, 0xA8, bit)

    def say() -> None:
        """Once it takes one (jz back to the `in`): mov dx, COM1; mov al, ah; out dx, al"""
        status(TAKES)
        emit(0x74, 0xFB, 0xBA, *struct.pack("<H", COM1), 0x88, 0xE0, 0xEE)

    def port(offset: int, value: int) -> None:
        """mov dx, COM1+offset; mov al, value; out dx, al"""
        emit(0xBA, *struct.pack("<H", COM1 + offset), 0xB0, value, 0xEE)

    emit(0xFA, 0x31, 0xC0, 0x8E, 0xD8, 0xFC)  # cli; xor ax, ax; mov ds, ax; cld
    port(1, 0x01)  # interrupt for each byte that comes
    port(4, 0x0B)  # and let that out
    emit(0xE4, 0x21, 0x24, 0xEF, 0xE6, 0x21)  # in al, 0x21; and al, ~(1 << 4); out 0x21, al
    emit(0xBE, *struct.pack("<H", text))  # mov si, text
    greet = len(code)
    emit(0xAC, 0x84, 0xC0, 0x74, 0)  # lodsb; test al, al; jz listen
    jump = len(code) - 1
    emit(0x88, 0xC4)  # mov ah, al
    say()
    emit(0xEB, greet - len(code) - 2 & 0xFF)  # jmp greet
    code[jump] = len(code) - jump - 1
    listen = len(code)
    emit(0xB9, 0x00, 0x10)  # mov cx, 0x1000: the next byte often comes soon
    status(READY)
    emit(0xE1, 0xFB)  # loope back to the `in`
    emit(0x75, 10)  # jnz to the byte
    emit(0xFA)  # cli: an interrupt between this look and the sleep would be slept through
    emit(0xEC, 0xA8, READY, 0x75, 4)  # in al, dx; test al, READY; jnz to the byte
    emit(0xFB, 0xF4)  # sti; hlt
    emit(0xEB, listen - len(code) - 2 & 0xFF)  # jmp listen
    emit(0xBA, *struct.pack("<H", COM1), 0xEC, 0x88, 0xC4)  # mov dx, COM1; in al, dx; mov ah, al
    emit(0x3C, ord("a"), 0x72, 7, 0x3C, ord("z"), 0x77, 3)  # below a, above z: leave it
    emit(0x80, 0xEC, 0x20)  # sub ah, 0x20
    say()
    emit(0xEB, listen - len(code) - 2 & 0xFF)  # jmp listen
    assert len(code) <= 0x100
    sector = bytes(code).ljust(0x100, b"\0") + GREETING + b"\0"
    return sector.ljust(510, b"\0") + b"\x55\xaa"


def write_disk(path: Path) -> Path:
    """A raw disk that boots it."""
    path.write_bytes(program() + bytes(MIB - 512))
    return path
