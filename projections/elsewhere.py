"""Questions of guest-data about guests that are not on its node: refused, and recorded for auditors."""

from datetime import datetime
from typing import NamedTuple

from runtime.bus.refused_calls import OTHERS, Refusal

#: The code of these records.
CODE = "guest_elsewhere"


class Elsewhere(NamedTuple):
    """The guest-data of a node has asked for a VM that is not there. `verb`: what it asked."""

    node: str
    vm: str
    verb: str

    def others(self) -> "Elsewhere":
        """What stands for many different questions of one node."""
        return Elsewhere(self.node, OTHERS, OTHERS)

    def record(self, at: datetime, count: int) -> bytes:
        """The record of a number of equal questions."""
        refusal = Refusal(
            at=at,
            status=403,
            code=CODE,
            address="",
            credential=f"vm:{self.vm}",
            actor=f"system:guest-data-{self.node}",
            method="ASK",
            path=self.verb,
            request="",
            count=count,
        )
        return refusal.model_dump_json(exclude_none=True).encode()
