"""Tenants: they create, stop, start and delete VMs over HTTP, and note what was answered."""

import asyncio
import random
import time
import uuid
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

Json = dict[str, Any]
#: Answers that are no failure: another command was first, or there is no room.
REFUSALS = frozenset({404, 409, 410, 422})
NODE_MEMORY_MIB = 16 * 512


@dataclass
class Tally:
    """`operations`: the position of each accepted command. `times`: when each answer came (`time.monotonic`). `took`:
    seconds from the first sending of each command to its answer.
    """

    operations: dict[str, int] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refused: int = 0
    again: int = 0


def longest_gap(times: list[float], since: float, until: float) -> float:
    """Seconds of the longest time without an answer between two times."""
    inside = [since, *(at for at in times if since <= at <= until), until]
    return max(after - before for before, after in pairwise(inside))


class Tenant:
    def __init__(self, http: httpx.AsyncClient, seed: str, tally: Tally, most: int) -> None:
        self._http = http
        self._chance = random.Random(seed)
        self._tally = tally
        self._most = most
        self._vms: list[str] = []

    async def fill(self) -> None:
        """Create as many VMs as it may have."""
        while len(self._vms) < self._most:
            await self._create()

    async def _create(self) -> None:
        size = {"vcpus": 1, "memory_mib": 512, "disk_gib": 1}
        body = {"name": f"vm-{self._chance.randrange(10**9)}", "image": "button", **size}
        answer = await self._command("POST", "", body)
        if answer is not None:
            self._vms.append(answer["vm"]["id"])

    async def work(self, stop: asyncio.Event) -> None:
        """Give commands until stopped."""
        while not stop.is_set():
            if len(self._vms) < self._most and self._chance.random() < 0.6:
                await self._create()
            elif self._vms:
                vm = self._chance.choice(self._vms)
                verb = self._chance.choice(["stop", "start", "delete", "change"])
                if verb == "delete":
                    if await self._command("DELETE", f"/{vm}", None) is not None:
                        self._vms.remove(vm)
                elif verb == "change":
                    await self._command("PATCH", f"/{vm}", {"labels": {"n": str(self._chance.randrange(1000))}})
                else:
                    await self._command("POST", f"/{vm}/{verb}", {"force": True} if verb == "stop" else {})
            await asyncio.sleep(0.05)

    async def _command(self, method: str, path: str, body: Json | None) -> Json | None:
        """The answer if the command was accepted. It is sent again with the same key until it is answered."""
        key = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        url = f"/v1/projects/chaos/vms{path}"
        began = time.monotonic()
        while True:
            try:
                answer = await self._http.request(method, url, json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                self._tally.again += 1
                await asyncio.sleep(0.1)
                continue
            if answer.status_code in (502, 503):
                if "Retry-After" not in answer.headers or not answer.json().get("detail"):
                    self._tally.wrong.append(f"{method} {url}: {answer.status_code} {answer.text[:300]}")
                self._tally.again += 1
                await asyncio.sleep(0.1)
                continue
            self._tally.times.append(time.monotonic())
            self._tally.took.append(time.monotonic() - began)
            if answer.is_success:
                done: Json = answer.json()
                self._tally.operations[done["operation"]["id"]] = done["position"]
                return done
            if answer.status_code in REFUSALS:
                self._tally.refused += 1
            else:
                self._tally.wrong.append(f"{method} {url}: {answer.status_code} {answer.text[:300]}")
            return None


async def look(http: httpx.AsyncClient, tally: Tally, stop: asyncio.Event) -> None:
    """Read lists until stopped, and note when each answer came."""
    while not stop.is_set():
        try:
            if (await http.get("/v1/projects/chaos/vms?limit=5")).is_success:
                tally.reads.append(time.monotonic())
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
