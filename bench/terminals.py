"""Many people at the serial consoles of VMs: memory and CPU of a gateway with so many open WebSockets.

A gateway of its own has the connections, so what it uses is for them. Each is to the console of another VM, from the
client through the gateway and over the bus to the daemon of a simulated node, whose guests answer with what they get.
`memory_mib` is the growth of the gateway's proportional set size, after something was typed into each console
in each round; `rtt_ms` the time from a typed line to its echo, all consoles at the same time.
"""

import argparse
import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from bench.cloud import cpu_seconds, percentile, pss_mib
from bench.fleet_parts import VMS, create, each, fleet, running

#: The memory that COUNT consoles may cost, in MiB.
GOAL, COUNT = 60.0, 200
#: Consoles that are opened at the same time.
AT_A_TIME = 16
#: Seconds after which a console that says nothing is an error.
PATIENCE = 30.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=COUNT, help=f"number of consoles ({COUNT})")
    parser.add_argument("--rounds", type=int, default=5, help="lines that are typed into each (5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of silence that are measured (10)")


async def typed(socket: ClientConnection, text: bytes) -> float:
    """Type something, and wait for its echo. Returns the seconds. Raises TimeoutError, ConnectionClosed."""
    began = time.perf_counter()
    await socket.send(text)
    found = b""
    async with asyncio.timeout(PATIENCE):
        while text not in found:
            piece = await socket.recv()
            found += piece if isinstance(piece, bytes) else piece.encode()
    return time.perf_counter() - began


async def measure(count: int = COUNT, rounds: int = 5, seconds: float = 10.0) -> dict[str, Any]:
    found: dict[str, Any] = {"count": count}
    async with fleet(min(10, count)) as made, AsyncExitStack() as stack:
        ids: list[str] = []
        await each(made, range(count), lambda http, _: create(http, ids))
        await running(made, count)
        await made.start_another_gateway()
        port, pid = made.more_ports[0], made.processes["gateway-2"].pid
        gate = asyncio.Semaphore(AT_A_TIME)

        async def opened(vm: str) -> ClientConnection:
            async with gate:
                url = f"ws://127.0.0.1:{port}{VMS}/{vm}/console"
                way = connect(url, subprotocols=[Subprotocol("binary")], compression=None, ping_interval=None)
                return await stack.enter_async_context(way)

        first = await opened(ids[0])  # what the first one loads is not the cost of one more
        await typed(first, b"first\r")
        rest, busy = pss_mib(pid), cpu_seconds(pid)
        began = time.perf_counter()
        sockets = [first, *await asyncio.gather(*map(opened, ids[1:]))]
        found["opened_per_second"] = round((count - 1) / (time.perf_counter() - began), 1)
        found["open_cpu_ms"] = round((cpu_seconds(pid) - busy) / max(1, count - 1) * 1e3, 2)
        found["memory_mib_open"] = round(pss_mib(pid) - rest, 1)
        times: list[float] = []
        busy = cpu_seconds(pid)
        for number in range(rounds):
            lines = [f"{number} {index} and some more words\r".encode() for index in range(len(sockets))]
            times += await asyncio.gather(*map(typed, sockets, lines))
        found["typed_cpu_us"] = round((cpu_seconds(pid) - busy) / max(1, count * rounds) * 1e6)
        found["rtt_ms_p50"] = round(percentile([1e3 * one for one in times], 0.5), 1)
        found["rtt_ms_p95"] = round(percentile([1e3 * one for one in times], 0.95), 1)
        busy = cpu_seconds(pid)
        await asyncio.sleep(seconds)
        found["silent_cores"] = round((cpu_seconds(pid) - busy) / seconds, 3)
        found["memory_mib"] = round(pss_mib(pid) - rest, 1)
        found["memory_kib_per_console"] = round(found["memory_mib"] * 1024 / max(1, count - 1), 1)
        found["goal_mib"] = round(GOAL * count / COUNT, 1)
        found["met"] = found["memory_mib"] <= found["goal_mib"]
    return found
