"""Two of each role, one of which is killed by SIGKILL, again and again, under load.

Clients know both gateways. Each call has an idempotency key, and is sent again, to the other gateway, when there is no
answer or one that says to try again. A guest asks both of guest-data in turn. So the slowest call shows for how long
nobody answered. A feed is resumed at the other gateway, where it must go on without a gap.
"""

import asyncio
import contextlib
import itertools
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.cloud import IMAGE, PROJECT, Cloud, cloud
from eventstore.log.store import EventStore
from eventstore.vault.vault import Vault
from runtime.bus import bus
from runtime.bus.accounts.authority import Authority
from runtime.local.child import free_port
from runtime.settings import Common

ROLES = ("handlers", "gateway", "projections", "guest-data")
WORKERS = 8
#: Answers after which a client tries again; and the seconds before it does.
AGAIN, PAUSE = frozenset({502, 503, 504}), 0.05
#: Seconds without an answer after which a client gives up.
PATIENCE = 60.0
#: Seconds between two questions of a guest: guest-data refuses one that asks too often.
ASKS = 0.2
#: Seconds from the ready second process to a kill, and from a kill to the start of the process.
BEFORE, AFTER = 0.5, 1.0
SIMULATED = '{"call": 0, "image": 0, "boot": 0.01, "lease": 0, "shutdown": 0}'


@dataclass
class Seen:
    """What clients saw. `slowest`: seconds of the slowest call by the role that was killed meanwhile."""

    calls: int = 0
    repeats: int = 0
    slowest: dict[str, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    vms: set[str] = field(default_factory=set)
    fed: list[int] = field(default_factory=list)
    resumed: int = 0
    #: which role is killed now
    victim: str = "nobody"

    def took(self, seconds: float, victims: set[str]) -> None:
        for victim in victims:
            self.slowest[victim] = max(self.slowest.get(victim, 0.0), seconds)


@dataclass
class Two:
    """A cloud with two of each role."""

    cloud: Cloud
    ports: dict[str, tuple[int, int]]
    seen: Seen = field(default_factory=Seen)

    def settings(self, role: str, number: int) -> dict[str, str]:
        names = {"gateway": "NEBULA_HTTP_PORT", "guest-data": "NEBULA_SEED_PORT"}
        return {names[role]: str(self.ports[role][number])} if role in names else {}

    async def start(self, role: str, number: int) -> None:
        await self.cloud.start(role, name=name(role, number), **self.settings(role, number))

    async def kill(self, role: str, number: int) -> None:
        await self.cloud.processes[name(role, number)].kill()

    async def ready(self) -> None:
        """Wait until all processes report that they work, and both gateways and both of guest-data answer.

        A process that was killed counts as alive for some seconds, so the new one is looked for by its number.
        """
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            for ports in self.ports.values():
                for port in ports:
                    await answers(http, port)
            url = f"http://127.0.0.1:{self.ports['gateway'][0]}/v1/status"
            reporting = [name(role, number) for role in ("handlers", "projections") for number in (0, 1)]
            for _ in range(1200):
                alive = {each["process"]["pid"] for each in (await http.get(url)).json()["roles"] if each["alive"]}
                if all(self.cloud.processes[each].pid in alive for each in reporting):
                    return
                await asyncio.sleep(0.05)
        raise RuntimeError("not two of each role work")


def name(role: str, number: int) -> str:
    return role if number == 0 else f"{role}-{number + 1}"


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=30)


async def answers(http: httpx.AsyncClient, port: int) -> None:
    """Wait until somebody answers at this port, whatever it is."""
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            await http.get(f"http://127.0.0.1:{port}/")
            return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"nobody answers at port {port}")


@asynccontextmanager
async def two(**settings: str) -> AsyncIterator[Two]:
    """Two of each role, ready, and one simulated node."""
    node = {
        "NEBULA_SIMULATE": "1",
        "NEBULA_SIMULATE_VCPUS": "10000",
        "NEBULA_SIMULATE_MEMORY_MIB": "1000000",
        "NEBULA_SIMULATE_DISK_GIB": "10000",
        "NEBULA_SIMULATE_SECONDS": SIMULATED,
    }
    async with cloud(["handlers", "gateway", "projections", "guest-data"], **node, **settings) as made:
        seed_port = int(made.env["NEBULA_SEED_PORT"])
        ports = {"gateway": (made.http_port, free_port()), "guest-data": (seed_port, free_port())}
        found = Two(made, ports)
        for role in ROLES:
            await found.start(role, 1)
        await made.prepare()
        await made.start("simulation")
        await found.ready()
        yield found


async def measure(rounds: int) -> dict[str, Any]:
    """Seconds of the slowest call around the deaths of each role, after so many deaths of each process."""
    async with two() as made:
        await under_load(made, lambda: deaths(made, rounds))
        seen = made.seen
    if seen.violations:
        raise RuntimeError("; ".join(seen.violations[:5]))
    return {
        "kills": 2 * rounds * len(ROLES),
        "calls": seen.calls,
        "sent_again": seen.repeats,
        "feed_items": len(seen.fed),
        "feed_resumed": seen.resumed,
        **{f"slowest_seconds_{role}": round(seconds, 2) for role, seconds in sorted(seen.slowest.items())},
    }


async def deaths(made: Two, rounds: int) -> None:
    """Kill each process of each role so often, one at a time. The other one of its role works meanwhile."""
    for _, role, number in itertools.product(range(rounds), ROLES, (0, 1)):
        await asyncio.sleep(BEFORE)
        made.seen.victim = role
        await made.kill(role, number)
        await asyncio.sleep(AFTER)
        await made.start(role, number)
        await made.ready()
        made.seen.victim = "nobody"


async def under_load(made: Two, during: Callable[[], Awaitable[None]]) -> None:
    """Do something while people create, read and delete VMs, guests ask for their seeds, and feeds are read."""
    over = asyncio.Event()
    feed = asyncio.create_task(follow(made, over))
    people = [asyncio.create_task(person(made, number, over)) for number in range(WORKERS)]
    people += [asyncio.create_task(guest(made, over))]
    try:
        await during()
    finally:
        over.set()
        await asyncio.gather(*people)
    await fed_to_the_end(made)
    feed.cancel()
    await asyncio.gather(feed, return_exceptions=True)


async def person(made: Two, number: int, over: asyncio.Event) -> None:
    """Create a VM, find it in the list, delete it; again and again."""
    chance = random.Random(number)
    body = {"image": IMAGE, "vcpus": 1, "memory_mib": 64, "disk_gib": 1}
    vms = f"/v1/projects/{PROJECT}/vms"
    async with client() as http:
        gateway = itertools.cycle(chance.sample(made.ports["gateway"], 2))
        while not over.is_set():
            key = uuid.uuid4().hex
            named = {**body, "name": f"vm-{key}"}
            accepted = await call(made, http, gateway, "POST", vms, named, key)
            vm, position = accepted["vm"]["id"], accepted["position"]
            again = await call(made, http, gateway, "POST", vms, named, key)
            listed = await call(made, http, gateway, "GET", f"{vms}?name=vm-{key}&min_position={position}")
            ids = [each["id"] for each in listed["items"]]
            if again["vm"]["id"] != vm or ids != [vm] or vm in made.seen.vms:
                made.seen.violations.append(f"key {key}: created {vm}, again {again['vm']['id']}, listed {ids}")
            made.seen.vms.add(vm)
            await call(made, http, gateway, "DELETE", f"{vms}/{vm}", None, uuid.uuid4().hex)


async def call(
    made: Two,
    http: httpx.AsyncClient,
    ports: Iterator[int],
    method: str,
    path: str,
    body: Any = None,
    key: str | None = None,
    *,
    text: bool = False,
) -> Any:
    """The body of the answer that counts. Any answer but a success, or one that says to try again, is a violation."""
    seen, started, port = made.seen, time.monotonic(), next(ports)
    victims = {seen.victim}
    headers = {"Idempotency-Key": key} if key else {}
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = await http.request(method, f"http://127.0.0.1:{port}{path}", json=body, headers=headers)
            if answer.status_code not in AGAIN:
                break
        if time.monotonic() - started > PATIENCE:
            raise RuntimeError(f"{method} {path}: no answer for {PATIENCE} seconds while {victims} died")
        seen.repeats += 1
        port = next(ports)
        await asyncio.sleep(PAUSE)
    seen.calls += 1
    seen.took(time.monotonic() - started, victims | {seen.victim})
    if answer.status_code >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
    return answer.text if text else answer.json()


async def follow(made: Two, over: asyncio.Event) -> None:
    """Read the project's feed until cancelled; go on at the other gateway when it breaks off."""
    ports = itertools.cycle(made.ports["gateway"])
    while True:
        seen = made.seen
        resume = {"Last-Event-ID": str(seen.fed[-1])} if seen.fed else {}
        url = f"http://127.0.0.1:{next(ports)}/v1/projects/{PROJECT}/feed"
        with contextlib.suppress(httpx.HTTPError):
            async with (
                client() as http,
                http.stream("GET", url, headers=resume) as answer,
            ):
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    if line.startswith("data:"):
                        item = json.loads(line.removeprefix("data:"))
                        if seen.fed and item["prev"] != seen.fed[-1]:
                            seen.violations.append(f"feed: {item['position']} says it follows {item['prev']}")
                        seen.fed.append(item["position"])
        seen.resumed += 1
        await asyncio.sleep(PAUSE)


async def fed_to_the_end(made: Two) -> None:
    """Wait until the feed has all events of the project that the log has, from the feed's first one on."""
    nc = await made.cloud.bus()
    store = EventStore(nc)
    wanted: list[int] = []
    position = made.seen.fed[0] - 1 if made.seen.fed else 0
    while page := await store.read(position):
        wanted += [each.position for each in page if each.ref.project == PROJECT]
        position = page[-1].position
    await nc.close()
    for _ in range(600):
        if len(made.seen.fed) >= len(wanted):
            break
        await asyncio.sleep(0.05)
    if made.seen.fed[: len(wanted)] != wanted:
        made.seen.violations.append(f"the feed has {len(made.seen.fed)} events, the log {len(wanted)} of the project")


async def guest(made: Two, over: asyncio.Event) -> None:
    """A guest that asks both of guest-data in turn for what cloud-init asks for."""
    async with client() as http:
        gateways, sources = itertools.cycle(made.ports["gateway"]), itertools.cycle(made.ports["guest-data"])
        body = {"name": "guest", "image": IMAGE, "vcpus": 1, "memory_mib": 64, "disk_gib": 1}
        path = f"/v1/projects/{PROJECT}/vms?wait=30s"
        vm = (await call(made, http, gateways, "POST", path, body, uuid.uuid4().hex))["vm"]["id"]
        nc = await bus.connect(
            Common(nats_url=made.cloud.nats_url, nats_creds=Authority(made.cloud.home).file("handlers")), "bench"
        )
        secret = await Vault.of(nc, made.cloud.home / "master.key").seed_secret(vm, 1)
        await nc.close()
        while not over.is_set():
            seed = await call(made, http, sources, "GET", f"/{secret}/meta-data", text=True)
            if "local-hostname: guest" not in seed:
                made.seen.violations.append(f"the guest was told {seed[:200]}")
            await asyncio.sleep(ASKS)
