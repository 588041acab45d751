"""What it costs to know the caller: reads and creates with a token and its role, next to a gateway without tokens.

Two gateways of one cloud take turns: one judges a token of the log and its owner's role in the project for each call,
the other runs with NEBULA_AUTH=none, where every caller is an operator. Everything behind them is the same. Only one of
them is asked at a time; each ratio is that of a pair of rounds next to each other, and the median of all pairs counts.
"""

import asyncio
import hashlib
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bench.cloud import PROJECT, Cloud, cloud, expect
from bench.commands import body
from bench.http import Connection
from runtime.local.child import free_port, spawn

IN_FLIGHT = 32
READS, CREATES = 600, 300
ROUNDS = 15
VMS = f"/v1/projects/{PROJECT}/vms"

Open = Callable[[], Connection]
Work = Callable[[Connection], Awaitable[None]]


async def measure() -> dict[str, Any]:
    async with cloud(["gateway", "handlers", "projections"]) as made, AsyncExitStack() as stack:
        await made.prepare()
        guarded = await stack.enter_async_context(guarded_gateway(made))
        async with made.connection() as http:
            vm = (await expect(http, "POST", VMS, body()))["vm"]["id"]
            position = (await expect(http, "GET", f"/v1/projects/{PROJECT}"))["position"]
            await expect(http, "GET", f"{VMS}/{vm}?min_position={position}")

        async def read(http: Connection) -> None:
            answer = await http.request("GET", f"{VMS}/{vm}")
            if answer.status != 200:
                raise RuntimeError(f"read: {answer.status} {answer.body[:300]!r}")

        reads = await compare(made.connection, guarded, read, READS)
        creates = await compare(made.connection, guarded, create, CREATES)
    return {
        "reads_per_second_with_token": round(reads[0]),
        "reads_per_second_without": round(reads[1]),
        "reads_ratio": round(reads[2], 3),
        "creates_per_second_with_token": round(creates[0]),
        "creates_per_second_without": round(creates[1]),
        "creates_ratio": round(creates[2], 3),
        "in_flight": IN_FLIGHT,
    }


@asynccontextmanager
async def guarded_gateway(made: Cloud) -> AsyncIterator[Open]:
    """A second gateway, which needs tokens; yields connections with the token of a member of the project."""
    admin, port = secrets.token_hex(16), free_port()
    file = made.home / "tokens"
    file.write_text(f"admin {hashlib.sha256(admin.encode()).hexdigest()}\n")
    env = {
        **made.env_of("gateway"),
        "NEBULA_AUTH": "tokens",
        "NEBULA_TOKENS_FILE": str(file),
        "NEBULA_HTTP_PORT": str(port),
    }
    command = [sys.executable, "-m", "cli.local.role", "gateway"]
    child = await spawn("guarded", command, made.home / "roles.log", env=env, new_session=False)

    def bearer(token: str) -> Connection:
        return Connection("127.0.0.1", port, {"Authorization": f"Bearer {token}"})

    try:
        await answers(lambda: bearer(admin))
        async with bearer(admin) as http:
            await expect(http, "POST", "/v1/users", {"id": "bench", "name": "bench"})
            await expect(http, "POST", f"/v1/projects/{PROJECT}/bind", {"principal": "user:bench", "role": "member"})
            issued = await expect(http, "POST", "/v1/tokens", {"name": "bench", "principal": "user:bench"})
        token = str(issued["secret"])
        await answers(lambda: bearer(token))
        yield lambda: bearer(token)
    finally:
        await child.stop()


async def answers(opened: Open) -> None:
    """Wait until the gateway knows the token."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            async with opened() as http:
                if (await http.request("GET", "/v1/me")).status == 200:
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError("the gateway does not know its token within a minute")


async def create(http: Connection) -> None:
    answer = await http.request("POST", VMS, body())
    if answer.status != 202:
        raise RuntimeError(f"create: {answer.status} {answer.body[:300]!r}")


async def compare(without: Open, guarded: Open, work: Work, count: int) -> tuple[float, float, float]:
    """Calls per second with and without a token (medians), and the median of the ratios of neighbouring rounds."""
    await rate(without, work, count // 4)
    await rate(guarded, work, count // 4)
    pairs = []
    for number in range(ROUNDS):
        first, second = (guarded, without) if number % 2 else (without, guarded)
        one = await rate(first, work, count)
        other = await rate(second, work, count)
        pairs.append((one, other) if number % 2 else (other, one))
    ratio = statistics.median(mine / bare for mine, bare in pairs)
    return statistics.median(mine for mine, _ in pairs), statistics.median(bare for _, bare in pairs), ratio


async def rate(opened: Open, work: Work, count: int) -> float:
    """Calls per second."""
    left = iter(range(count))

    async def worker() -> None:
        async with opened() as http:
            for _ in left:
                await work(http)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - started)
