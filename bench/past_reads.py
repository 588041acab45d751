"""The reads that `bench past` measures, each in turn with the same query in SQL."""

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from bench.cloud import Cloud, cpu_seconds, percentile
from bench.http import Connection
from projections import database
from projections.past import queries
from projections.vms import VMS
from runtime.tasks.tasks import heed_cancellation

LIMIT = 100
#: Of these, the first ones are often true in the log of `scale`, the others rarely or never.
OFTEN: Sequence[Mapping[str, str]] = (
    {},
    {"phase": "running"},
    {"tag": "tag-3"},
    {"label": "team=team-7"},
    {"node": "node-003"},
)
RARELY: Sequence[Mapping[str, str]] = (
    *({"phase": "failed"}, {"phase": "scheduled"}, {"phase": "requested"}, {"name": "nobody"}, {"tag": "nothing"}),
    *({"label": "team=nobody"}, {"node": "node-999"}, {"phase": "stopped", "label": "team=team-7"}),
)
WARM = 3
"""Answers before those that count: connections, and what Postgres reads first."""


@dataclass
class Reader:
    """Asks a gateway as several callers, and Postgres. `tokens`: by the name of the caller."""

    cloud: Cloud
    conn: database.Connection
    tokens: Mapping[str, str]
    project: str
    rounds: int
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _http: dict[str, Connection] = field(default_factory=dict)

    async def __aenter__(self) -> "Reader":
        for who, token in self.tokens.items():
            headers = {"Authorization": f"Bearer {token}"}
            connection = Connection("127.0.0.1", self.cloud.http_port, headers)
            self._http[who] = await self._stack.enter_async_context(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def get(self, path: str, who: str = "operator") -> Any:
        """The body of an answer. A gateway that has just started may not know yet what there is."""
        while True:
            answer = await self._http[who].request("GET", path)
            if answer.status != 503:
                break
            heed_cancellation()
            await asyncio.sleep(0.1)
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {answer.body[:500]!r}")
        return answer.json()

    async def timed(self, path: str, who: str, query: str | None = None, params: Any = None) -> dict[str, float]:
        """Milliseconds of the answers, and of the query in turn with them, with the CPU time of its session."""
        ours, bare = list[float](), list[float]()
        used = cpu_seconds(self.conn.info.backend_pid)
        for number in range(self.rounds + WARM):
            heed_cancellation()
            started = time.perf_counter()
            await self.get(path, who)
            between = time.perf_counter()
            if query is not None:
                await (await self.conn.execute(query.encode(), params)).fetchall()
            if number >= WARM:
                ours.append((between - started) * 1e3)
                bare.append((time.perf_counter() - between) * 1e3)
        found = {"p50_ms": round(statistics.median(ours), 2), "p99_ms": round(percentile(ours, 0.99), 2)}
        if query is not None:
            floor = statistics.median(bare)
            found |= {"bare_p50_ms": round(floor, 2), "bare_p99_ms": round(percentile(bare, 0.99), 2)}
            used = cpu_seconds(self.conn.info.backend_pid) - used
            found["bare_cpu_ms"] = round(used / (self.rounds + WARM) * 1e3, 1)
            found["ratio"] = round(found["p50_ms"] / floor, 2)
        return found


async def lists(read: Reader, at: int) -> dict[str, Any]:
    """Each list: its first and its last page as the operator, and the first as the viewer; the slowest page of all."""
    moment = await time_at(read, at)
    found: dict[str, Any] = {}
    pages: dict[str, float] = {}
    for given in (*OFTEN, *RARELY):
        conditions = {**given, "project": read.project}
        query = queries.list_statement(VMS, " AND ".join(VMS.filters[name] for name in conditions))
        params = {**conditions, "at_position": at, "of_kind": "vm", "after": 0, "limit": LIMIT + 1}
        name = ",".join(f"{key}={value}" for key, value in given.items()) or "no filter"
        path = f"/v1/projects/{read.project}/vms?{urlencode({**given, 'limit': LIMIT})}"
        of_list = {"first": await read.timed(f"{path}&at={at}", "operator", query, params)}
        of_list["viewer"] = await read.timed(f"{path}&at={at}", "viewer", query, params)
        token, items = await last_page(read, f"{path}&at={at}")
        if token:
            deep = {**params, "after": int(token.partition("-")[0])}
            of_list["deep"] = await read.timed(f"{path}&at={at}&page_token={token}", "operator", query, deep)
        if given in (OFTEN[0], RARELY[0]):
            of_list["by_time"] = await read.timed(f"{path}&{urlencode({'at': moment})}", "operator", query, params)
        found[name] = {"items": items, **of_list}
        pages |= {f"{name}: {page}": each["p99_ms"] for page, each in of_list.items()}
    slowest = max(pages, key=pages.__getitem__)
    whole = {"position": at, "time": moment, "p99_ms": pages[slowest], "slowest": slowest, "lists": found}
    return {"lists": whole}


async def last_page(read: Reader, path: str) -> tuple[str, int]:
    """The token of the last page of a list (empty if it has one page), and the number of its items."""
    token, items = "", 0
    while True:
        body = await read.get(f"{path}{f'&page_token={token}' if token else ''}")
        items += len(body["items"])
        if body["next_page_token"] is None:
            return token, items
        token = body["next_page_token"]


async def time_at(read: Reader, at: int) -> str:
    """The time of an event, in the form of the API."""
    found = await read.get(f"/v1/events?from={at}&limit=1")
    time_: str = found["items"][0]["time"]
    return time_


async def one(read: Reader, at: int) -> dict[str, dict[str, float]]:
    """A VM as it was, by a position and by a time."""
    listed = await read.get(f"/v1/projects/{read.project}/vms?limit=1&at={at}")
    vm = listed["items"][0]["id"]
    path = f"/v1/projects/{read.project}/vms/{vm}"
    query, params = queries.one_statement(VMS), {"project": read.project, "id": vm, "at": at}
    moment = urlencode({"at": await time_at(read, at)})
    by_position = await read.timed(f"{path}?at={at}", "viewer", query, params)
    return {"one": by_position, "one_by_time": await read.timed(f"{path}?{moment}", "viewer", query, params)}


async def diffs(read: Reader, end: int) -> dict[str, Any]:
    """Pages of what changed: of the cloud, of the project, of one resource, in long and in short ranges."""
    middle = end // 2
    vm = (await read.get(f"/v1/projects/{read.project}/vms?limit=1&at={middle}"))["items"][0]["id"]
    ranges = {
        "all": f"from=0&to={end}",
        "the later half": f"from={middle}&to={end}",
        "100 events": f"from={middle}&to={middle + 100}",
        "nodes": f"from=0&to={end}&kind=node",
        "images": f"from={middle}&to={end}&kind=image",
        "users, later": f"from={middle}&to={end}&kind=user",
        "the project": f"from={middle}&to={end}&project={read.project}",
        "one VM": f"from=0&to={end}&id={vm}",
    }
    found: dict[str, Any] = {}
    for name, query in ranges.items():
        path = f"/v1/diff?{query}&limit={LIMIT}"
        first = await read.get(path)
        found[name] = {"items": len(first["items"]), "first": await read.timed(path, "operator")}
        if first["next_page_token"] is not None:  # not the last page: each has to be read until there
            deep = f"{path}&page_token={first['next_page_token']}"
            found[name]["second"] = await read.timed(deep, "operator")
    whole = f"/v1/diff?{ranges['the later half']}&limit={LIMIT}"
    found["the later half"]["viewer"] = await read.timed(whole, "viewer")
    pages = {
        f"{name}: {page}": each[page]["p99_ms"]
        for name, each in found.items()
        for page in ("first", "second", "viewer")
        if page in each
    }
    slowest = max(pages, key=pages.__getitem__)
    return {"diffs": {"p99_ms": pages[slowest], "slowest": slowest, "ranges": found}}


async def marks(read: Reader, end: int) -> dict[str, Any]:
    """Marks of the whole log and of the project: the first answers of a gateway, which keeps the counts, and later."""
    found: dict[str, Any] = {}
    await read.get("/v1/events?limit=1")
    for name, query, who in (("first", "", "operator"), ("project", f"&project={read.project}", "viewer")):
        path = f"/v1/marks?buckets=200{query}&to={end - 1}"
        started = time.perf_counter()
        body = await read.get(path, who)
        found[f"{name}_ms"] = round((time.perf_counter() - started) * 1e3, 1)
        found[f"{name}_again"] = await read.timed(path, who)
        found[f"{name}_events"] = sum(each["events"] for each in body["items"])
    started = time.perf_counter()
    await read.get(f"/v1/events?{urlencode({'from': await time_at(read, end // 2)})}&limit=1")
    found["events_by_time_first_ms"] = round((time.perf_counter() - started) * 1e3, 1)
    return {"marks": found}
