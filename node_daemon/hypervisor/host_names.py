"""What one node's interfaces, marks, chains and tables are called on its host.

Several nodes can run on one host, each with a data folder of its own. All names contain a word that follows from this
folder, so each node makes, checks and removes only what is its own.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

#: The first characters of the name of each guest's interface, of all nodes. A name has at most 15 characters.
TAPS = "nbl"
#: The mark of a packet: 4 bits that all guests have, 16 bits of the node, 12 bits of the project.
GUEST, GUEST_MASK, NODE_MASK, PROJECT_MASK = 0xE0000000, 0xF0000000, 0xFFFFF000, 0x00000FFF

_PLAIN = re.compile(r"/[A-Za-z0-9._/+-]{0,199}")


@dataclass(frozen=True)
class HostNames:
    """The names of the node with this data folder."""

    folder: Path

    @property
    def word(self) -> str:
        """Four letters or digits."""
        return _word(str(self.folder), 4)

    @property
    def taps(self) -> str:
        """How the names of the interfaces of its guests begin."""
        return TAPS + self.word

    def tap(self, vm: str) -> str:
        """The name of the interface of a VM."""
        return self.taps + _word(vm, 8)

    def chain(self, name: str) -> str:
        """The name of a chain of iptables, which may have 28 characters."""
        return f"NEBULA-{self.word}-{name}"

    def mark(self, project: int = 0) -> int:
        """The mark of a packet of a guest, by the number of its project on this node."""
        node = int.from_bytes(hashlib.sha256(str(self.folder).encode()).digest()[:2])
        return GUEST | node << 12 | project

    @property
    def remark(self) -> str:
        """A comment that names the folder, so that others can see whether it still exists. Empty if they cannot."""
        text = str(self.folder)
        return f"nebula:{text}" if _PLAIN.fullmatch(text) else ""

    def interfaces(self) -> set[str]:
        """The interfaces of the guests that run."""
        return {each.name for each in Path("/sys/class/net").glob(f"{self.taps}*")}


def _word(text: str, length: int) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest())[:length].decode().lower()


def leftover(remark: str) -> HostNames | None:
    """The names of the node with this remark, if its folder does not exist and no guest of it runs; else None."""
    kind, _, folder = remark.partition(":")
    if kind != "nebula" or not folder or Path(folder).exists():
        return None
    names = HostNames(Path(folder))
    return None if names.interfaces() else names
