"""A call that waits while a server goes away is answered by a problem that says so: 503, to be asked again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from nats.aio.msg import Msg
from psycopg import AsyncConnection
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.state import Gateway
from runtime import subjects
from tests.gate import Gate, gate
from tests.gateway.platform import SPEC, VMS, Platform, served
from tests.waiting import eventually

NODE = "host-1"


@dataclass
class Cut:
    """A gateway of its own on the servers of the platform, each behind a gate."""

    api: Platform
    gateway: Gateway
    http: httpx.AsyncClient
    url: str
    bus: Gate
    database: Gate
    #: a VM that runs, one that nobody places, and the operation that waits for that
    vm: str
    unplaced: str
    operation: str


@pytest.fixture(scope="module")
async def cut(api: Platform) -> AsyncIterator[Cut]:
    there = urlsplit(api.dsn)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(gate(api.side.nats.port))
        rows = await stack.enter_async_context(gate(there.port or 5432))
        await bus.open()
        await rows.open()
        user = f"{there.netloc.rpartition('@')[0]}@" if "@" in there.netloc else ""
        dsn = there._replace(netloc=f"{user}127.0.0.1:{rows.port}").geturl()
        gateway, url = await stack.enter_async_context(served(api.side, dsn, nats_url=f"nats://127.0.0.1:{bus.port}"))
        gateway.pool.timeout = 0.3  # seconds until it is known that there is no connection
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=90))
        running = (await api.running())["vm"]["id"]
        waiting = await api.create(name="nowhere", region="nowhere")
        await eventually(lambda: gateway.position.value >= waiting["position"], "it is as far")
        made = Cut(api, gateway, http, url, bus, rows, running, waiting["vm"]["id"], waiting["operation"]["id"])
        yield made


@pytest.fixture(autouse=True)
async def back(cut: Cut) -> AsyncIterator[None]:
    """The servers are there again, for the next test."""
    yield
    await cut.bus.open()
    await cut.database.open()
    await eventually(lambda: cut.gateway.nc.is_connected, "the bus is back")

    async def reads() -> bool:
        return (await cut.http.get(f"{VMS}/{cut.vm}")).status_code == 200

    await eventually(reads, "reads are back")


def problem(answer: httpx.Response) -> tuple[int, str]:
    """How a call is refused, by a whole problem document that says when to ask again."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    said = answer.json()
    assert (said["status"], answer.headers.get("retry-after")) == (answer.status_code, "1")
    assert said["detail"]
    return answer.status_code, said["code"]


#: By what waits in the database: the call. Each looks at a table that the test has locked.
ASKS_ROWS: dict[str, tuple[str, str]] = {
    "an operation": ("operations", "/v1/operations/{operation}?wait=60s"),
    "events": ("events", "/v1/events?vm={vm}&wait=60s"),
    "a VM": ("vms", f"{VMS}/{{vm}}?min_position=1"),
    "a list": ("vms", VMS),
    "a console's log": ("vms", f"{VMS}/{{vm}}/console-log?wait=60s"),
    "a guest": ("vms", f"{VMS}/{{vm}}/guest"),
}


async def asks(holder: AsyncConnection[Any], table: str) -> bool:
    """Whether somebody waits for a lock on the table."""
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
    row = await (await holder.execute(query, [f"nebula.{table}"])).fetchone()
    return bool(row and row[0])


@pytest.mark.parametrize(("name", "way"), [*((name, "garbled") for name in ASKS_ROWS), ("an operation", "cut")])
async def test_rows_that_go_in_the_middle_of_an_answer(cut: Cut, name: str, way: str) -> None:
    table, path = ASKS_ROWS[name]
    async with await AsyncConnection.connect(cut.api.dsn) as holder:
        await holder.execute(f"LOCK TABLE nebula.{table} IN ACCESS EXCLUSIVE MODE")
        asked = asyncio.create_task(cut.http.get(path.format(vm=cut.vm, operation=cut.operation)))
        await eventually(lambda: asks(holder, table), "it has asked")
        if way == "garbled":
            cut.database.say(b"\xff\xff\xff\xff\xff\xff\xff\xff")
        await cut.database.close()
        assert problem(await asked) == (503, "read_models_unavailable")


#: By what waits for the bus: the call, and the subject that it waits on.
ASKS_BUS: dict[str, tuple[str, str, Any, str]] = {
    "a console's log": ("GET", f"{VMS}/{{vm}}/console-log?wait=60s", None, "console-log"),
    "a guest": ("GET", f"{VMS}/{{vm}}/guest", None, "guest"),
}


@pytest.mark.parametrize("name", ASKS_BUS)
async def test_a_bus_that_goes_while_a_node_is_asked(cut: Cut, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, path, body, verb = ASKS_BUS[name]
    heard = asyncio.Event()

    async def hear(msg: Msg) -> None:
        heard.set()

    node = await cut.api.side.nc.subscribe(subjects.ask(NODE, verb), cb=hear)
    await cut.api.side.nc.flush()
    monkeypatch.setattr("gateway.guests.asks.PATIENCE", 0.5)
    monkeypatch.setattr("gateway.guests.agent.AGENT", 0.5)
    asked = asyncio.create_task(cut.http.request(method, path.format(vm=cut.vm).replace("60s", "1s"), json=body))
    await heard.wait()
    await cut.bus.close()
    assert problem(await asked) == (503, "log_unavailable")
    await node.unsubscribe()


#: What has to ask the log itself: the call.
ASKS_LOG: dict[str, tuple[str, str, Any]] = {
    "a feed": ("GET", "/v1/projects/default/feed?from=now", None),
    "a feed of a VM": ("GET", f"{VMS}/{{vm}}/feed", None),
    "a ticket": ("POST", "/v1/tickets", {"path": "/v1/feed"}),
    "the past": ("GET", f"{VMS}/{{vm}}?at=1", None),
    "a position to come": ("GET", "/v1/events?after=999999&wait=60s", None),
    "what is not in the rows": ("GET", "/v1/operations/6ba7b810-9dad-11d1-80b4-00c04fd430c8?wait=60s", None),
    "a command": ("POST", VMS + "?wait=60s", {"name": "x", "image": "base", **SPEC}),
    "a parked message": ("GET", "/v1/parked/log/1", None),
}


async def test_a_bus_that_is_away(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, since each waits for the log as long as it is worth it."""
    await cut.bus.close()
    await eventually(lambda: not cut.gateway.nc.is_connected, "it has noticed")
    calls = [cut.http.request(m, path.format(vm=cut.vm), json=body) for m, path, body in ASKS_LOG.values()]
    answers = dict(zip(ASKS_LOG, await asyncio.gather(*calls), strict=True))
    assert {name: problem(answer) for name, answer in answers.items()} == dict.fromkeys(
        ASKS_LOG, (503, "log_unavailable")
    )


@pytest.mark.parametrize("kind", ["console", "vnc"])
async def test_a_console_is_refused_by_a_problem_too(cut: Cut, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = asyncio.Event()

    async def hear(msg: Msg) -> None:
        heard.set()

    node = await cut.api.side.nc.subscribe(subjects.ask(NODE, kind), cb=hear)
    await cut.api.side.nc.flush()
    monkeypatch.setattr("gateway.guests.asks.PATIENCE", 0.5)
    opening = asyncio.create_task(opened(f"ws{cut.url.removeprefix('http')}{VMS}/{cut.vm}/{kind}"))
    await heard.wait()
    await cut.bus.close()
    refused = await opening
    assert refused.status_code == 503
    assert b'"code":"log_unavailable"' in (refused.body or b"")
    await node.unsubscribe()


async def opened(url: str) -> Any:
    """The answer with which a WebSocket is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, proxy=None):
            pass
    return caught.value.response


async def test_a_wait_goes_on_when_the_rows_are_back(cut: Cut) -> None:
    """Rows that are away while a call waits, and there when it looks again, are no reason to end it."""
    after = cut.gateway.position.value
    asked = asyncio.create_task(cut.http.get(f"/v1/operations/{cut.operation}?wait=60s"))
    events = asyncio.create_task(cut.http.get(f"/v1/events?vm={cut.unplaced}&after={after}&wait=60s"))
    await cut.database.close()
    await cut.database.open()
    done = await cut.api.call("POST", f"{VMS}/{cut.unplaced}/abandon")
    for answer in await asyncio.gather(asked, events):
        assert answer.status_code == 200 or problem(answer) == (503, "read_models_unavailable")
    assert done.status_code == 202


async def test_a_command_that_waits_is_accepted_though_the_rows_go(cut: Cut) -> None:
    waits = asyncio.create_task(
        cut.http.post(VMS + "?wait=2s", json={"name": "w", "image": "base", "region": "nowhere", **SPEC})
    )
    await cut.database.close()
    answer = await waits
    assert (answer.status_code, answer.json()["operation"]["status"]) == (202, "accepted")
