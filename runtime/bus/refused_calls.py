"""A refused call, or what a server of the bus has refused: what auditors see."""

from datetime import datetime
from typing import NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

#: In the place of what differs between refusals that are counted in one record.
OTHERS = "(others)"
#: The code of packets that a node's rules have dropped.
PACKETS = "guest_packets"


class Refusal(BaseModel):
    """A refused call. `credential`: the id of its credential, which may be an invented one if the status is 401.

    For the bus: `credential` is a public key, `method` is PUBLISH, SUBSCRIBE or CONNECT, `path` is the subject, and
    `count` is the number of equal refusals within a second.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    at: AwareDatetime
    status: int = Field(ge=400, le=499)
    code: str = Field(max_length=64)
    address: str = Field(max_length=64)
    credential: str | None = Field(default=None, max_length=512)
    actor: str | None = Field(default=None, max_length=512)
    method: str = Field(max_length=32)
    path: str = Field(max_length=256)
    request: str = Field(max_length=512)
    count: int = Field(default=1, ge=1, le=2**53)


class RefusedGuest(NamedTuple):
    """What a guest was refused, without its time. `credential`: `vm:<id>`, the VM whose secret was used, if known."""

    status: int
    code: str
    address: str
    credential: str | None
    method: str
    path: str

    def others(self) -> "RefusedGuest":
        """What stands for many different refusals."""
        return RefusedGuest(self.status, self.code, OTHERS, None, OTHERS, OTHERS)

    def record(self, at: datetime, count: int) -> bytes:
        """The record of a number of equal refusals."""
        refusal = Refusal(
            at=at,
            status=self.status,
            code=self.code,
            address=self.address[:64],
            credential=self.credential,
            method=self.method[:32],
            path=self.path[:256],
            request="",
            count=count,
        )
        return refusal.model_dump_json(exclude_none=True).encode()


def refused_packets(place: str, vm: str | None) -> RefusedGuest:
    """Packets of a VM that a node has dropped. `place`: where its rules have; `vm`: None if they do not know."""
    return RefusedGuest(403, PACKETS, "", f"vm:{vm}" if vm is not None else None, "PACKET", place)


def of_node(found: Refusal, node: str, at: datetime) -> Refusal:
    """What a node says about packets of its guests: it names no other actor, and no credential but that of a VM.

    Raises ValueError if it says something else.
    """
    if found.code != PACKETS or not (found.credential or "vm:").startswith("vm:"):
        raise ValueError("a node says only which packets of guests it has dropped")
    return Refusal(
        at=at,
        status=403,
        code=PACKETS,
        address="",
        credential=found.credential,
        actor=f"node:{node}",
        method="PACKET",
        path=found.path,
        request="",
        count=found.count,
    )
