"""People at work: random commands on random VMs over HTTP, with the manners of a good client.

Each command has an idempotency key, and is sent again with it while nobody answers; one in ten is sent once more after
it was answered, and has to be recognised.
"""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

Json = dict[str, Any]

#: Seconds in which somebody has to answer: servers are killed and started meanwhile.
PATIENCE = 120.0
REFUSALS = frozenset({404, 409, 410, 422})
"""Answers that are fine: others were there first, or it makes no sense (a disk does not shrink)."""


@dataclass(frozen=True)
class Estate:
    """A project and what its VMs are like. At most `most` of them live at a time."""

    project: str
    region: str
    image: str
    memory_mib: int
    most: int


@dataclass
class Tally:
    """What was done. `violations` are answers that there must not be."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    again: int = 0
    operations: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


#: What people do with a VM in each phase, and how often.
HABITS: dict[str, dict[str, int]] = {
    "running": {"stop": 4, "restart": 4, "pause": 3, "suspend": 2, "rebuild": 1, "resize": 1, "delete": 1, "change": 2},
    "stopped": {"start": 8, "rebuild": 1, "resize": 2, "delete": 2, "change": 1, "stop": 1},
    "paused": {"resume": 6, "suspend": 2, "stop": 1, "delete": 1},
    "suspended": {"resume": 6, "stop": 1, "delete": 1},
    "failed": {"start": 2, "retry": 3, "delete": 4},
    "scheduled": {"delete": 1, "stop": 1, "start": 1, "abandon": 1},
}
ANYTHING = {"start": 1, "stop": 1, "restart": 1, "pause": 1, "resume": 1, "suspend": 1, "change": 1, "abandon": 1}


class Person:
    """One of those who use the cloud at the same time."""

    def __init__(self, client: Callable[[], httpx.AsyncClient], estates: list[Estate], seed: str, tally: Tally) -> None:
        self._client = client
        self._estates = estates
        self._random = random.Random(seed)
        self._tally = tally

    async def work(self, vms: dict[str, list[str]], until: float) -> None:
        """Give commands until that time (`time.monotonic`). `vms`: the ids in each project, shared by all people."""
        async with self._client() as http:
            while time.monotonic() < until:
                estate = self._random.choices(self._estates, [e.most for e in self._estates])[0]
                mine = vms[estate.project]
                if len(mine) < estate.most and self._random.random() < 0.5:
                    await self._create(http, estate, mine)
                elif mine:
                    await self._do_something(http, estate, mine)

    async def _create(self, http: httpx.AsyncClient, estate: Estate, mine: list[str]) -> None:
        name = f"vm-{self._random.randrange(10**9)}"
        size = {"vcpus": 1, "memory_mib": estate.memory_mib, "disk_gib": 1}
        body = {"name": name, "image": estate.image, "region": estate.region, **size}
        answer = await self._command(http, "create", "POST", f"/v1/projects/{estate.project}/vms", body)
        if answer is not None:
            mine.append(answer["vm"]["id"])

    async def _do_something(self, http: httpx.AsyncClient, estate: Estate, mine: list[str]) -> None:
        vm = self._random.choice(mine)
        path = f"/v1/projects/{estate.project}/vms/{vm}"
        found = await self._ask(http, "GET", path, None, None)
        if found.status_code in REFUSALS:
            return  # somebody else has deleted it
        if not found.is_success:
            self._tally.violations.append(f"GET {path}: {found.status_code} {found.text[:300]}")
            return
        habits = HABITS.get(found.json()["phase"], ANYTHING)
        verb = self._random.choices(list(habits), list(habits.values()))[0]
        match verb:
            case "delete":
                answer = await self._command(http, verb, "DELETE", path, None)
                if answer is not None and vm in mine:
                    mine.remove(vm)
            case "change":
                labels = {"round": str(self._random.randrange(1000))}
                await self._command(http, verb, "PATCH", path, {"labels": labels})
            case "resize":
                size = {"vcpus": self._random.choice([1, 2]), "disk_gib": self._random.choice([1, 2, 3])}
                await self._command(http, verb, "POST", f"{path}/{verb}", size)
            case "stop" | "restart":
                force = self._random.random() < 0.3
                body = {"force": True} if force else {"grace_seconds": self._random.choice([1.0, 5.0, 30.0])}
                await self._command(http, verb, "POST", f"{path}/{verb}", body)
            case _:
                await self._command(http, verb, "POST", f"{path}/{verb}", {})

    async def _command(
        self, http: httpx.AsyncClient, verb: str, method: str, path: str, body: Json | None
    ) -> Json | None:
        """The answer when it was accepted."""
        key = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        answer = await self._ask(http, method, path, body, key)
        if answer.status_code in REFUSALS:
            self._tally.refused[verb] += 1
            return None
        if not answer.is_success:
            self._tally.violations.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            return None
        done: Json = answer.json()
        operation = done["operation"]["id"]
        self._tally.accepted[verb] += 1
        self._tally.operations[operation] = verb
        if self._random.random() < 0.1:
            again = await self._ask(http, method, path, body, key)
            self._tally.again += 1
            if not again.is_success or again.json()["operation"]["id"] != operation:
                self._tally.violations.append(f"{method} {path} again: {again.status_code} {again.text[:300]}")
        return done

    async def _ask(
        self, http: httpx.AsyncClient, method: str, path: str, body: Json | None, key: str | None
    ) -> httpx.Response:
        """The answer, however often it takes to get one."""
        headers = {"Idempotency-Key": key} if key else {}
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = await http.request(method, path, json=body, headers=headers)
                if answer.status_code != 503:
                    return answer
                failure = answer.text
            except httpx.TransportError as error:
                failure = repr(error)
            if time.monotonic() > deadline:
                raise AssertionError(f"nobody answers {method} {path}: {failure}")
            await asyncio.sleep(0.1 + 0.2 * self._random.random())
