"""Sets the wall clock of one running process off, whatever program it is.

Programs read the clock in the vDSO: code that the kernel maps into each process. Here it is replaced, in the memory of
one process, by a system call plus an offset. That reaches programs without libc as well, such as nats-server, and the
offset can change while they run. The monotonic clock and all other processes are as before, and so is the process that
is started next in the place of this one. As root, on x86-64.
"""

import contextlib
import os
import platform
import re
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

POSSIBLE = os.geteuid() == 0 and platform.machine() == "x86_64"
#: Bytes at the end of the vDSO that are used. The kernel leaves the rest of its last page empty.
_ROOM = 256
_MARK = b"nbclock\0"
_ENTRY = 16
#: In what is written: the mark, the offset in seconds, and one function behind the other.
_OFFSET, _CODE = 8, 16
#: mov rcx, [rip + …]: the offset
_LOAD = bytes.fromhex("488b0d")
#: For each function: its code up to `_LOAD`, and from there on.
_FUNCTIONS = {
    # mov eax, 228; syscall; test eax, eax; jnz end; test edi, edi; jz add; cmp edi, 5; jnz end; add: …; add [rsi], rcx
    "__vdso_clock_gettime": (bytes.fromhex("b8e40000000f0585c0751385ff740583ff05750a"), bytes.fromhex("48010ec3")),
    # mov eax, 96; syscall; test rdi, rdi; jz end; …; add [rdi], rcx
    "__vdso_gettimeofday": (bytes.fromhex("b8600000000f054885ff740a"), bytes.fromhex("48010fc3")),
    # mov eax, 201; syscall; …; add rax, rcx; test rdi, rdi; jz end; mov [rdi], rax
    "__vdso_time": (bytes.fromhex("b8c90000000f05"), bytes.fromhex("4801c84885ff7403488907c3")),
}


def set_off(pid: int, seconds: int) -> None:
    """From now on the process reads this many seconds more from the wall clock; 0: as it is.

    Raises OSError if the process has ended, ValueError if its vDSO has no room.
    """
    with stopped(pid), open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        low, high = _mapped(pid)
        base = high - _ROOM
        if _read(memory, base, len(_MARK)) != _MARK:
            _install(pid, memory, low, high)
        _write(memory, base + _OFFSET, struct.pack("<q", seconds))


def offset(pid: int) -> int:
    """By how many seconds it was set off."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        base = _mapped(pid)[1] - _ROOM
        mark, seconds = struct.unpack("<8sq", _read(memory, base, 16))
        return int(seconds) if mark == _MARK else 0


def _install(pid: int, memory: BinaryIO, low: int, high: int) -> None:
    vdso, base = _read(memory, low, high - low), high - _ROOM
    if any(vdso[-_ROOM:]):
        raise ValueError("the vDSO of this kernel has no room for a clock")
    entries = _entries(vdso)
    code, jumps = bytearray(), list[tuple[int, bytes]]()
    for name, (before, after) in _FUNCTIONS.items():
        begin = base + _CODE + len(code)
        loaded = begin + len(before) + len(_LOAD) + 4
        code += before + _LOAD + struct.pack("<i", base + _OFFSET - loaded) + after
        entry = low + entries[name]
        jumps.append((entry, b"\xe9" + struct.pack("<i", begin - entry - 5)))
    _until_elsewhere(pid, [entry for entry, _ in jumps])
    _write(memory, base, _MARK + struct.pack("<q", 0) + bytes(code))
    for entry, jump in jumps:
        _write(memory, entry, jump)


def _entries(vdso: bytes) -> dict[str, int]:
    """The places of its functions, by their names in the dynamic symbols."""
    at, size, count = struct.unpack_from("<Q14xHH", vdso, 32)
    found: dict[int, int] = {}
    for header in range(at, at + size * count, size):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", vdso, header)
        if kind == 2:  # DYNAMIC
            found = dict(struct.iter_unpack("<qQ", vdso[offset : offset + length]))
    names, symbols = found[5], found[6]  # DT_STRTAB, DT_SYMTAB, which ends where the names begin
    entries: dict[str, int] = {}
    for place in range(symbols, names, 24):
        name, value = struct.unpack_from("<I4xQ", vdso, place)
        entries[vdso[names + name : vdso.index(b"\0", names + name)].decode()] = value
    return entries


def _until_elsewhere(pid: int, entries: list[int]) -> None:
    """Until no thread is in what is overwritten."""
    for _ in range(100):
        counters = [int(one.split()[-1], 16) for one in _syscalls(pid)]
        if not any(entry <= counter < entry + _ENTRY for counter in counters for entry in entries):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.001)
        _stop(pid)
    raise OSError(f"process {pid} is always in its clock")


def _syscalls(pid: int) -> Iterator[str]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield (task / "syscall").read_text()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """All threads stand still meanwhile."""
    _stop(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    while not all(state in "TtZX" for state in _states(pid)):
        time.sleep(0.0005)


def _states(pid: int) -> Iterator[str]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield (task / "stat").read_text().rpartition(")")[2].split()[0]


def _mapped(pid: int) -> tuple[int, int]:
    found = re.search(r"^([0-9a-f]+)-([0-9a-f]+) .*\[vdso\]$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    if found is None:
        raise ProcessLookupError(f"process {pid} has no vDSO")
    return int(found[1], 16), int(found[2], 16)


def _read(memory: BinaryIO, place: int, size: int) -> bytes:
    memory.seek(place)
    return memory.read(size)


def _write(memory: BinaryIO, place: int, what: bytes) -> None:
    memory.seek(place)
    memory.write(what)
