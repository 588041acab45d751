"""Work on a platform while it is upgraded: people, guests, and a program that follows a feed.

A client knows both gateways. It sends a call again only if the answer says so (503 with `Retry-After`), or if there is
none because the gateway is being replaced. Everything else than a success is a violation.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from eventstore.vault.vault import Vault
from runtime.bus import bus
from runtime.settings import Common
from tests.upgrade.bed import Bed
from tests.waiting import eventually

Json = dict[str, Any]
PROJECT, IMAGE = "work", "blank"
VMS = f"/v1/projects/{PROJECT}/vms"
#: Seconds without a success after which a client gives up, and between two calls of one person.
PATIENCE, PAUSE = 45.0, 0.05
#: Seconds between two questions of a guest: guest-data refuses one that asks too often.
ASKS = 0.3
ENDED = {"succeeded", "failed", "cancelled", "superseded"}


@dataclass
class Seen:
    """What clients saw. `operations`: the position of each accepted command; `kept`: VMs that nobody deletes."""

    calls: int = 0
    again: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    operations: dict[str, int] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    fed: list[int] = field(default_factory=list)
    resumed: int = 0
    asked: int = 0
    wrong: list[str] = field(default_factory=list)


class Client:
    """Calls both gateways in turn."""

    def __init__(self, made: Bed, seen: Seen, http: httpx.AsyncClient) -> None:
        self._made, self.seen, self._http = made, seen, http
        self._numbers = itertools.cycle((0, 1))

    async def call(
        self, method: str, path: str, body: Json | None = None, key: str | None = None, *, refusal: str = ""
    ) -> Any:
        """The JSON of a success, or of a refusal with this code. Raises AssertionError if there is none."""
        headers = {"Idempotency-Key": key} if key else {}
        started = time.monotonic()
        while True:
            number = next(self._numbers)
            away = self._made.away
            url = f"http://127.0.0.1:{self._made.ports['gateway'][number]}{path}"
            try:
                answer = await self._http.request(method, url, json=body, headers=headers)
                if answer.is_success or answer.json()["code"] == refusal:
                    break
                why = f"{answer.status_code} {answer.json()['code']}"
                if answer.status_code != 503 or "retry-after" not in answer.headers:
                    raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            except httpx.TransportError as error:
                why = repr(error)
                if ("gateway", number) not in (away, self._made.away):
                    raise AssertionError(
                        f"{method} {path}: {why} from gateway {number}, which is not replaced"
                    ) from error
            self.seen.again[why] += 1
            if time.monotonic() - started > PATIENCE:
                raise AssertionError(f"{method} {path}: no success for {PATIENCE} seconds: {why}")
            await asyncio.sleep(0.1)
        self.seen.calls += 1
        self.seen.slowest = max(self.seen.slowest, time.monotonic() - started)
        return answer.json()

    async def command(self, method: str, path: str, body: Json | None = None) -> Json:
        """A command, once more with its key, and the end of its operation, which has to be a success."""
        key = str(uuid.uuid4())
        accepted: Json = await self.call(method, path, body, key)
        operation = accepted["operation"]["id"]
        self.seen.operations[operation] = accepted["position"]
        again = await self.call(method, path, body, key)
        if again["operation"]["id"] != operation:
            raise AssertionError(f"{method} {path}: a repeat of {operation} became {again['operation']['id']}")
        await self.ended(operation, accepted["position"])
        return accepted

    async def ended(self, operation: str, position: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            found = await self.call("GET", f"/v1/operations/{operation}?min_position={position}")
            if found["status"] in ENDED:
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"operation {operation} did not end: {found}")
            await asyncio.sleep(0.1)
        if found["status"] != "succeeded":
            raise AssertionError(f"operation {operation} is {found}")


async def prepare(made: Bed, client: Client) -> None:
    """A project, and an image without an operating system."""
    await client.call("POST", "/v1/projects", {"id": PROJECT, "name": "Work"}, str(uuid.uuid4()))
    content = b"\0" * 510 + b"\x55\xaa" + b"\0" * (1024 * 1024 - 512)
    made.images.mkdir()
    file = made.images / "blank.raw"
    file.write_bytes(content)
    await client.command(
        "POST", "/v1/images", {"id": IMAGE, "source": str(file), "sha256": hashlib.sha256(content).hexdigest()}
    )


async def person(client: Client, seed: int, over: asyncio.Event) -> None:
    """Create a VM, find it, look at it, stop and start it, and delete every other one."""
    chance = random.Random(seed)
    for number in itertools.count():
        if over.is_set():
            return
        name = f"vm-{seed}-{number}"
        body = {"name": name, "image": IMAGE, "vcpus": 1, "memory_mib": 64, "disk_gib": 1, "user_data": f"#{name}"}
        made = await client.command("POST", VMS, body)
        vm, position = made["vm"]["id"], made["position"]
        listed = await client.call("GET", f"{VMS}?name={name}&min_position={position}")
        if [each["id"] for each in listed["items"]] != [vm]:
            raise AssertionError(f"{vm} was created as {name}; listed are {listed['items']}")
        # Simulated nodes have no console logs: this is their own, proven answer.
        await client.call("GET", f"{VMS}/{vm}/console-log", refusal="no_console_log")
        if chance.random() < 0.5:
            await client.command("POST", f"{VMS}/{vm}/stop", {"force": chance.random() < 0.5})
            await client.command("POST", f"{VMS}/{vm}/start", {})
        await client.command("PATCH", f"{VMS}/{vm}", {"labels": {"by": str(seed)}})
        if number % 2:
            await client.command("DELETE", f"{VMS}/{vm}")
        else:
            client.seen.kept.append(vm)
        await asyncio.sleep(PAUSE)


async def guest(made: Bed, client: Client, over: asyncio.Event) -> None:
    """A guest that asks both of guest-data in turn. It tries again, as cloud-init does, when there is no answer."""
    body = {"name": "guest", "image": IMAGE, "vcpus": 1, "memory_mib": 64, "disk_gib": 1}
    vm = (await client.command("POST", VMS, body))["vm"]["id"]
    creds = made.home / "bus" / "handlers" / "bus.creds"
    nc = await bus.connect(Common(home=made.home, nats_url=made.nats_url, nats_creds=creds), "tests")
    secret = await Vault.of(nc, made.keys / "master.key").seed_secret(vm, 1)
    await nc.close()
    numbers = itertools.cycle((0, 1))
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        since = time.monotonic()
        while not over.is_set():
            number, away = next(numbers), made.away
            with contextlib.suppress(httpx.TransportError):
                answer = await http.get(f"http://127.0.0.1:{made.ports['guest-data'][number]}/{secret}/meta-data")
                if answer.status_code == 200 and "local-hostname: guest" in answer.text:
                    client.seen.asked += 1
                    since = time.monotonic()
                elif answer.status_code == 500 and ("guest-data", number) in (away, made.away):
                    pass  # guest-data of version 0.1.0 says so of what it had not answered when it was stopped
                elif answer.status_code != 503:
                    raise AssertionError(f"the guest got {answer.status_code} {answer.text[:300]}")
            if time.monotonic() - since > PATIENCE:
                raise AssertionError(f"the guest was told nothing for {PATIENCE} seconds")
            await asyncio.sleep(ASKS)


async def follow(made: Bed, seen: Seen) -> None:
    """Read the project's feed until cancelled, at the other gateway whenever it breaks off."""
    numbers: Iterator[int] = itertools.cycle((0, 1))
    async with made.client() as http:
        while True:
            resume = {"Last-Event-ID": str(seen.fed[-1])} if seen.fed else {}
            url = f"http://127.0.0.1:{made.ports['gateway'][next(numbers)]}/v1/projects/{PROJECT}/feed"
            with contextlib.suppress(httpx.HTTPError):
                async with http.stream("GET", url, headers=resume) as answer:
                    answer.raise_for_status()
                    async for line in answer.aiter_lines():
                        if line.startswith("data:"):
                            item = json.loads(line.removeprefix("data:"))
                            if seen.fed and item["prev"] != seen.fed[-1]:
                                seen.wrong.append(
                                    f"feed: {item['position']} follows {item['prev']}, not {seen.fed[-1]}"
                                )
                            seen.fed.append(item["position"])
            seen.resumed += 1
            await asyncio.sleep(0.1)


@asynccontextmanager
async def load(made: Bed, people: int) -> AsyncIterator[Seen]:
    """So many people, a guest and a feed work inside of this block. After it, all that they began has ended."""
    seen, over = Seen(), asyncio.Event()
    async with made.client() as http:
        first = Client(made, seen, http)
        await prepare(made, first)
        following = asyncio.create_task(follow(made, seen))
        work = [person(Client(made, seen, http), seed, over) for seed in range(people)]
        work.append(guest(made, Client(made, seen, http), over))
        working = [asyncio.create_task(_noted(each, seen)) for each in work]
        try:
            yield seen
        finally:
            over.set()
            await asyncio.gather(*working)
            try:
                await eventually(lambda: _fed(made, seen), "the feed has all events", 30)
            except AssertionError as error:
                seen.wrong.append(repr(error))
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _noted(work: Coroutine[Any, Any, None], seen: Seen) -> None:
    """Note a violation as soon as it is seen."""
    try:
        await work
    except Exception as error:  # the checks show all of them
        seen.wrong.append(repr(error))


async def some_work(seen: Seen, operations: int = 2) -> None:
    """Wait until so many more commands are accepted, so that the processes of now have met; or there is a violation."""
    enough = len(seen.operations) + operations
    await eventually(lambda: len(seen.operations) >= enough or seen.wrong, "work goes on")


async def _fed(made: Bed, seen: Seen) -> bool:
    return seen.fed == [one.position for one in await made.events(PROJECT) if one.position >= min(seen.fed, default=0)]
