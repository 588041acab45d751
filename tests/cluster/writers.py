"""Writers that send commands over the bus as a gateway does, and note what they were answered."""

import asyncio
import itertools
import json
import time
import uuid
from dataclasses import dataclass, field

from nats.aio.client import Client

from gateway.commands.commands import PATIENCE
from runtime import subjects
from runtime.bus import requests


@dataclass
class Ledger:
    """`accepted`: the position of each project that was created. `times`: when each answer came (`time.monotonic`)."""

    accepted: dict[str, int] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    times: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    #: what was said to those that have to try again
    said: set[str] = field(default_factory=set)
    again: int = 0

    def longest_gap(self, since: float, until: float) -> float:
        """Seconds of the longest time without an answer between two times."""
        inside = [since, *(at for at in self.times if since <= at <= until), until]
        return max(after - before for before, after in itertools.pairwise(inside))

    def first_after(self, at: float) -> float:
        """When the first answer after a time came."""
        return min(each for each in self.times if each >= at)


async def write(nc: Client, ledger: Ledger, stop: asyncio.Event) -> None:
    """Create projects until stopped, one after the other. Each is sent again until it is answered."""
    while not stop.is_set():
        id_, operation = f"p-{uuid.uuid4().hex[:12]}", str(uuid.uuid4())
        context = {"actor": "tests", "grants": [["operator", None]], "operation": operation, "fingerprint": operation}
        body = json.dumps({"args": {"project": id_, "name": id_}, "context": context}).encode()
        ledger.sent.add(id_)
        while not stop.is_set():
            try:
                reply = await requests.ask(nc, subjects.command(id_, "project", "create"), body, PATIENCE)
            except requests.Unanswered:
                ledger.again += 1
                await asyncio.sleep(0.05)
                continue
            answer = json.loads(reply.data)
            problem = answer.get("problem")
            if problem is None:
                ledger.accepted[id_] = int(answer["ok"]["position"])
                ledger.times.append(time.monotonic())
                break
            if problem.get("status") != 503:
                ledger.refused.append(f"{id_}: {problem}")
                break
            ledger.said.add(str(problem.get("detail")))
            ledger.again += 1
            await asyncio.sleep(0.05)
