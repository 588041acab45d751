"""What the log knows of the VMs of a node. A node compares it with what it sees, instead of repeating its reports."""

import hashlib
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, StringConstraints

from domain.base import Message, Uuid
from domain.contract.values import Power

MOST_AWAITED = 256
"""Maximum number of VMs that handlers name to a node."""

NOTHING = 0
"""The digest of no VM."""


class KnownVms(Message):
    """The answer of handlers to a node that asks for it with a heartbeat.

    `digest`: of the VMs that run, are paused or suspended, as the log knows them, in hex: the exclusive or of their
    facts. `awaited`: the VMs about which handlers await a report; they are not in the digest. None: too many.
    """

    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    awaited: Annotated[tuple[Uuid, ...], Field(max_length=MOST_AWAITED)] | None = ()


def fact(vm: str, epoch: int, power: Power, boots: int = 0, resets: int = 0, addresses: Iterable[str] = ()) -> int:
    """What a digest has of one VM, as 128 bits. The boot, the resets and the addresses count for one that runs."""
    more = f" {boots} {resets} {' '.join(sorted(set(addresses)))}" if power is Power.ON else ""
    return int.from_bytes(hashlib.sha256(f"{vm} {epoch} {power}{more}".encode()).digest()[:16])


def digest(facts: Iterable[int]) -> str:
    """The digest of VMs, of which each has one fact."""
    whole = NOTHING
    for each in facts:
        whole ^= each
    return f"{whole:032x}"
