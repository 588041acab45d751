"""What was done to the streams of the bus with a credential that may do everything there. Each record is an aggregate.

Its only event says what the servers did, or refused, at a request of an operator who used such a credential. The same
record can come twice; the second time changes nothing.
"""

from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from domain.base import Command, Event, Message, Uuid

Line = Annotated[str, StringConstraints(max_length=512)]


class RecordMaintenance(Command):
    """As `BusMaintained`. `at`: when the authority of the bus heard of it."""

    maintenance: Uuid
    call: Line
    target: Line
    credential: Line
    address: Line
    request: Line = ""
    refused: Line | None = None
    count: Annotated[int, Field(ge=1, le=2**53)] = 1


class BusMaintained(Event):
    """A call of JetStream that changes something.

    - `call`: such as STREAM.DELETE; `target`: the stream, and the consumer if it is about one; `request`: its body.
    - `credential`: the public key of the credential; `address`: from where.
    - `refused`: why the servers refused it; None if they did it.
    - `count`: the number of equal calls within a second.
    """

    TOPIC = "nebula.maintenance.BusMaintained"
    at: AwareDatetime
    maintenance: str
    call: str
    target: str
    credential: str
    address: str
    request: str = ""
    refused: str | None = None
    count: int = 1


class Maintenance(Message):
    """The state of a record."""

    at: AwareDatetime
    call: str
    target: str


def decide(known: Maintenance | None, command: RecordMaintenance) -> list[BusMaintained]:
    """The event of a record that is new."""
    if known is not None:
        return []
    return [BusMaintained(**command.model_dump())]


def evolve(known: Maintenance | None, event: Event) -> Maintenance | None:
    """The state after an event. Only the first event counts."""
    if known is None and isinstance(event, BusMaintained):
        return Maintenance(at=event.at, call=event.call, target=event.target)
    return known
