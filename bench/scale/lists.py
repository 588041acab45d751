"""Lists of 100 over HTTP, with each filter of VMs and any two together, and of nodes; next to the same query in SQL.

The first and the last page of each, in turn with the bare query on a connection of its own. The figures are those of
the slowest list: `…_p50_ms` and `…_p99_ms` of its answers. `vms_ratio` is the greatest ratio of a full page's median to
that of its query.
"""

import asyncio
import itertools
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.cloud import Cloud, expect, percentile
from bench.http import Connection
from bench.scale.logs import with_log
from bench.scale.verify import last_position
from projections import database
from projections.nodes import NODES
from projections.vms import VMS
from runtime.tasks.tasks import heed_cancellation

PROJECT = "project-00"
FILTERS = {"phase": "running", "tag": "tag-3", "label": "team=team-7", "name": "web-7", "node": "node-003"}
"""A value of each documented filter."""
LIMIT, ROUNDS = 100, 40


@dataclass(frozen=True)
class Listed:
    """A page of a list: its path, and the same query in SQL with its parameters."""

    path: str
    query: str
    params: dict[str, Any]


async def measure(vms: int, home: Path | None) -> dict[str, float]:
    async with with_log(vms, home) as cloud:
        await cloud.start("projections")
        await cloud.start("gateway")
        nc = await cloud.bus()
        end = await last_position(nc)
        await nc.close()
        async with await database.connect(cloud.env["NEBULA_POSTGRES_DSN"], "bench") as conn:
            while await checkpoint(conn) < end:
                heed_cancellation()
                cloud.check()
                await asyncio.sleep(1)
            await conn.execute("ANALYZE")
            async with await connected(cloud) as http:
                pages = [page for chosen in choices() for page in await of(http, chosen)]
                vm_lists = [await timed(http, conn, page) for page in pages]
                nodes = await timed(http, conn, node_list())
    slowest = max(vm_lists, key=lambda each: each["p99_ms"])
    return {
        "lists": len(pages),
        **{f"vms_{name}": value for name, value in slowest.items()},
        "vms_ratio": max((each["ratio"] for each in vm_lists if each["items"] == LIMIT), default=0.0),
        **{f"nodes_{name}": value for name, value in nodes.items()},
    }


async def checkpoint(conn: database.Connection) -> int:
    """The position of the read models; -1 while there are none."""
    cursor = await conn.execute("SELECT to_regclass('nebula.checkpoint') IS NOT NULL AS made")
    made = await cursor.fetchone()
    return await database.checkpoint(conn) if made and made["made"] else -1


async def connected(cloud: Cloud) -> Connection:
    """A connection to the gateway, once it listens."""
    while True:
        try:
            async with cloud.connection() as http:
                await http.request("GET", "/healthz")
            return cloud.connection()
        except OSError:
            heed_cancellation()
            await asyncio.sleep(0.1)


def choices() -> list[dict[str, str]]:
    """No filter, each one, and any two together."""
    pairs = itertools.combinations(FILTERS.items(), 2)
    return [{}, *({name: value} for name, value in FILTERS.items()), *(dict(pair) for pair in pairs)]


async def of(http: Connection, chosen: dict[str, str]) -> list[Listed]:
    """The first and the last page of a list."""
    given = {**chosen, "project": PROJECT}
    query = statement("vms", " AND ".join(VMS.filters[name] for name in given))
    first = path = f"/v1/projects/{PROJECT}/vms?{urlencode({**chosen, 'limit': LIMIT})}"
    token = ""
    while (body := await expect(http, "GET", path))["next_page_token"] is not None:
        token = body["next_page_token"]
        path = f"{first}&page_token={token}"
    deep = [Listed(path, query, {**given, "after": int(token.partition("-")[0])})] if token else []
    return [Listed(first, query, {**given, "after": 0}), *deep]


def node_list() -> Listed:
    return Listed(
        f"/v1/nodes?{urlencode({'region': 'region-1', 'limit': LIMIT})}",
        statement("nodes", NODES.filters["region"]),
        {"region": "region-1", "after": 0},
    )


def statement(table: str, condition: str) -> str:
    columns = f"SELECT shown FROM {table} WHERE NOT deleted AND created > %(after)s AND {condition}"
    return f"{columns} ORDER BY created LIMIT {LIMIT + 1}"


async def timed(http: Connection, conn: database.Connection, page: Listed) -> dict[str, float]:
    """Milliseconds of the answers and of the query, in turn."""
    items = len((await expect(http, "GET", page.path))["items"])
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(ROUNDS):
        heed_cancellation()
        started = time.perf_counter()
        answer = await http.request("GET", page.path)
        ours.append((time.perf_counter() - started) * 1e3)
        if answer.status != 200:
            raise RuntimeError(f"{page.path}: {answer.status} {answer.body[:500]!r}")
        started = time.perf_counter()
        await (await conn.execute(page.query.encode(), page.params)).fetchall()
        bare.append((time.perf_counter() - started) * 1e3)
    median, floor = statistics.median(ours), statistics.median(bare)
    return {
        "p50_ms": round(median, 2),
        "p99_ms": round(percentile(ours, 0.99), 2),
        "bare_p50_ms": round(floor, 2),
        "ratio": round(median / floor, 2),
        "items": items,
    }
