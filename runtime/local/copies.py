"""Is the copy of the log in a server's folder whole? Asked before the server of a cluster starts.

nats-server counts the messages of a block file that is missing as deleted. Its copy is then current for the other
servers, may lead the stream, and whoever copies it lacks the same messages. So such a server must not start: its folder
is treated as a lost disk, and it copies all streams from the others.

Only what is certain is checked: nothing is ever deleted from these streams, so the first block begins with position 1.
Blocks have no certain numbers: those of a copy that was made anew begin with 2. A last block that is too short is no
fault: the server gets the rest from the others.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from runtime import subjects

#: Streams of which nothing is ever deleted.
WHOLE = (subjects.EVENTS, subjects.CHECKPOINTS)
#: The begin of a message in a block: its length, and its position. The highest two bits are flags.
_HEAD = struct.Struct("<IQ")
_POSITION = (1 << 62) - 1
#: The first byte of an index.
_INDEX = bytes([11])


def faults(store: Path) -> list[str]:
    """What is missing in the streams of a stopped server (`NEBULA_NATS_STORE`). Raises OSError."""
    found: list[str] = []
    for name in WHOLE:
        for folder in sorted(store.glob(f"jetstream/*/streams/{name}/msgs")):
            found += [f"{folder}: {fault}" for fault in _of_stream(folder)]
    return found


def _of_stream(folder: Path) -> Iterator[str]:
    blocks = sorted((file for file in folder.glob("*.blk") if file.stem.isdecimal()), key=lambda file: int(file.stem))
    if not blocks:
        if _counted(folder / "index.db"):
            yield "all blocks are missing"
        return
    first = next((found for found in map(_first_position, blocks) if found is not None), 1)
    if first != 1:
        yield f"it begins with position {first}"


def _counted(index: Path) -> int:
    """The number of messages that the index counts; 0 if there is none, or it has another format."""
    try:
        content = index.read_bytes()[:12]
    except FileNotFoundError:
        return 0
    if content[:1] != _INDEX:
        return 0
    number = 0
    for place, byte in enumerate(content[2:]):  # a varint
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            break
    return number


def _first_position(block: Path) -> int | None:
    """The position of the first message in a block; None if it has none."""
    with block.open("rb") as file:
        head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    position: int = _HEAD.unpack(head)[1]
    return position & _POSITION
