"""Who was connected to the console of which VM, and until when, stands in the log of that VM."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from nats.aio.msg import Msg
from pydantic_core import to_json
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from gateway.commands import commands
from runtime import subjects
from runtime.bus.pipe import Pipe
from runtime.bus.requests import Patience
from tests.gateway.platform import VMS, Platform, served
from tests.waiting import eventually

NODE = "host-1"


@dataclass
class Node:
    """Answers for the VMs of a node: it connects whoever asks, or refuses."""

    api: Platform
    refusal: dict[str, Any] | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    pipes: list[Pipe] = field(default_factory=list)

    async def answer(self, msg: Msg) -> None:
        question = json.loads(msg.data)
        self.asked.append(question)
        if self.refusal is not None:
            await msg.respond(to_json({"problem": self.refusal}))
            return
        here, there = (subjects.session(NODE, question["session"], hearer) for hearer in ("node", "gateway"))
        self.pipes.append(Pipe(self.api.side.nc, here, there))
        await self.pipes[-1].open()
        await msg.respond(to_json({"ok": {}}))

    def connect(self, vm: str, kind: str, query: str = "") -> connect:
        return connect(f"ws{self.api.url.removeprefix('http')}{VMS}/{vm}/{kind}{query}", proxy=None)


@pytest.fixture
async def node(api: Platform) -> AsyncIterator[Node]:
    made = Node(api)
    heard = [await api.side.nc.subscribe(subjects.ask(NODE, verb), cb=made.answer) for verb in ("console", "vnc")]
    await api.side.nc.flush()
    yield made
    for one in heard:
        await one.unsubscribe()
    for each in made.pipes:
        await each.close("the test is over")


async def consoles(api: Platform, vm: str) -> list[dict[str, Any]]:
    """The events of connections to a VM's console, as the API shows them."""
    found = (await api.get(f"/v1/events?vm={vm}&limit=500"))["items"]
    return [event for event in found if "Console" in event["type"]]


async def closed(api: Platform, vm: str) -> dict[str, Any]:
    """The event that says that a connection has ended, once it is there."""

    async def last() -> dict[str, Any] | None:
        found = await consoles(api, vm)
        return found[-1] if found and found[-1]["type"].endswith("Closed") else None

    event: dict[str, Any] = await eventually(last, "closed")
    return event


@pytest.mark.parametrize(
    ("kind", "query", "console", "force"),
    [("console", "", "serial", False), ("console", "?force=true", "serial", True), ("vnc", "", "vnc", False)],
)
async def test_each_connection_is_in_the_log_of_its_vm(
    api: Platform, node: Node, kind: str, query: str, console: str, force: bool
) -> None:
    vm = (await api.running())["vm"]["id"]
    before = await api.get(f"{VMS}/{vm}")

    async def settled() -> Any:
        found = await api.side.wanted(vm)
        return found if found is not None and found.disk_made == 1 else None

    wanted = await eventually(settled, "the document of a VM that runs")
    async with node.connect(vm, kind, query):
        (opened,) = await consoles(api, vm)
    (question,) = node.asked
    assert opened["type"] == "nebula.vm.VmConsoleOpened"
    assert opened["actor"] == question["actor"] == "local"
    said = {name: opened["data"][name] for name in ("session", "console", "force")}
    assert said == {"session": question["session"], "console": console, "force": force}
    ended = await closed(api, vm)
    assert (ended["data"]["session"], ended["data"]["why"]) == (question["session"], "the client has left")
    assert (ended["actor"], ended["data"]["seconds"] >= 0) == ("local", True)
    assert (ended["aggregateversion"], ended["prevhash"]) == (opened["aggregateversion"] + 1, opened["digest"])
    after = await api.get(f"{VMS}/{vm}?min_position={ended['position']}")
    moved = {"version": ended["aggregateversion"], "position": ended["position"]}
    assert after == {**before, **moved}, "nothing else of it, nor when it was changed last"
    assert await api.side.wanted(vm) == wanted, "its node is told nothing"


async def test_why_it_ended_is_said(api: Platform, node: Node) -> None:
    vm = (await api.running())["vm"]["id"]
    async with node.connect(vm, "console") as socket:
        await node.pipes[0].close("ada has taken over")
        await socket.wait_closed()
    assert (await closed(api, vm))["data"]["why"] == "ada has taken over"


async def test_what_its_node_refuses_was_not_opened(api: Platform, node: Node) -> None:
    vm = (await api.running())["vm"]["id"]
    node.refusal = {"code": "console_in_use", "status": 409, "detail": "bob has this console", "field": None}
    with pytest.raises(InvalidStatus):
        async with node.connect(vm, "console"):
            pass
    assert node.asked
    assert await consoles(api, vm) == []


@pytest.mark.parametrize("kind", ["console", "vnc"])
async def test_a_browser_reads_a_refusal_as_text(api: Platform, node: Node, kind: str) -> None:
    """Its scripts cannot read the answer to a handshake."""
    vm = (await api.running())["vm"]["id"]
    node.refusal = {"code": "console_in_use", "status": 409, "detail": "bob has this console", "field": None}
    url = f"ws{api.url.removeprefix('http')}{VMS}/{vm}/{kind}"
    async with connect(url, proxy=None, subprotocols=[Subprotocol("binary"), Subprotocol("problem")]) as socket:
        assert socket.subprotocol == "binary"
        said = json.loads(await socket.recv())
        assert said == {"status": 409, "code": "console_in_use", "detail": "bob has this console"}
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4409, "console_in_use")
    assert await consoles(api, vm) == []
    node.refusal = None
    async with connect(url, proxy=None, subprotocols=[Subprotocol("problem")]) as socket:
        assert socket.subprotocol is None
        await node.pipes[0].send(b"hello")
        assert await socket.recv() == b"hello"


async def test_what_cannot_be_recorded_is_not_opened(
    api: Platform, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handlers that were asked may decide later on: the end is in the log all the same, and nothing behind it."""
    vm = (await api.running())["vm"]["id"]
    (handlers,) = api.side.processes
    with monkeypatch.context() as patch:
        patch.setattr(commands, "PATIENCE", Patience(one_try=0.2, in_all=0.4))
        handlers.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(InvalidStatus) as caught:
                async with node.connect(vm, "console"):
                    pass
        finally:
            handlers.send_signal(signal.SIGCONT)
    problem = json.loads(caught.value.response.body or b"{}")
    assert (caught.value.response.status_code, problem["code"]) == (503, "log_unavailable")
    (pipe,) = node.pipes
    await eventually(lambda: pipe.ended, "the node has let go of it")
    ended = await closed(api, vm)
    assert ended["data"]["session"] == node.asked[0]["session"]
    assert ended["data"]["why"] == "it could not be recorded in time, so it was not opened"
    assert await api.side.answers()
    kinds = [event["type"].rpartition(".")[2] for event in await consoles(api, vm)]
    assert kinds in (["VmConsoleClosed"], ["VmConsoleOpened", "VmConsoleClosed"])


async def test_a_gateway_that_stops_records_what_it_ends(api: Platform, node: Node) -> None:
    vm = (await api.running())["vm"]["id"]
    async with served(api.side, api.dsn) as (gateway, url):
        socket = await connect(f"ws{url.removeprefix('http')}{VMS}/{vm}/console", proxy=None)
        gateway.stop.set()
        await asyncio.wait_for(socket.wait_closed(), 60)
        assert socket.close_code == 1012
    assert (await closed(api, vm))["data"]["why"] == "the gateway is being stopped"
