"""Waits until each role of `nebula up` works, by requests like those of a client."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from cli.client.client import Client, Document, path
from cli.client.command import trust_in
from cli.client.credentials import Given, target
from cli.client.errors import Refused, Unreachable
from cli.local.progress import Progress
from runtime.local.child import ServerError
from runtime.trust import trusted_at

#: Seconds for the roles to be ready: they may have a long log to read first.
START_SECONDS = 300.0
#: Seconds for an answer of guest-data.
PATIENCE = 10.0


def client(home: Path, url: str) -> Client:
    """A client of the platform, with the token of its first operator."""
    found = target(Given(url), Given(), home)
    return Client(url, found.token, lambda _: None, trust=trust_in(found.ca))


async def wait_until_ready(
    home: Path,
    url: str,
    seeds: str | None,
    began: datetime,
    ready: Progress,
    simulated: int | None,
    *,
    node: bool = True,
) -> None:
    """Wait until each role works: gateway answers, handlers decide, read models are current, the node sends heartbeats.

    `seeds`: the address of guest-data on this host, which has to reach the projections; None for none. `simulated`:
    how many nodes are simulated.
    `node`: whether a node can be ready.
    """
    api = client(home, url)
    await answer("gateway", home, partial(api.get, "/v1/openapi.json"))
    ready("gateway", url)
    projects = await answer("projections", home, partial(api.get, path("projects")))
    ready("projections", "read models answer")
    if not projects["items"]:
        await answer("handlers", home, partial(_create_first_project, api))
        ready("handlers", "decide; project default created")
    if seeds is not None:
        await answer("guest-data", home, partial(_serves_guests, seeds))
        ready("guest-data", seeds)
    if not node:
        return
    alive = await answer("node", home, partial(_living_nodes, api, began))
    some = f"{alive[0]} and {simulated - 1} more" if simulated is not None else ", ".join(alive)
    ready("node", f"{some} ready")


async def answer(role: str, home: Path, ask: Callable[[], Any]) -> Any:
    """Call `ask` until the platform answers, and return the answer. Raises ServerError if that takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return await asyncio.to_thread(ask)
        except Unreachable as error:
            if time.monotonic() > deadline:
                log = home / "log" / f"{role}.log"
                raise ServerError(f"{role} is not ready after {START_SECONDS:.0f} s: {error}; see {log}") from error
        await asyncio.sleep(0.1)


def _create_first_project(api: Client) -> Document:
    """Create the project `default`, unless it exists. The read models need not show it yet."""
    try:
        return api.send("POST", path("projects"), {"id": "default", "name": "default"})
    except Refused as refusal:
        if refusal.code != "project_exists":
            raise
        return {}


def _serves_guests(url: str) -> None:
    """Raises Unreachable while guest-data cannot answer guests."""
    try:
        with httpx.Client(trust_env=False, timeout=PATIENCE, verify=trusted_at(url)) as http:
            found = http.get(f"{url}/healthz")
    except httpx.HTTPError as error:
        raise Unreachable(f"{url}: {error!r}") from error
    if found.status_code != 200:
        raise Unreachable(f"{url}: {found.text.strip()[:300]}")


def _living_nodes(api: Client, since: datetime) -> list[str]:
    """The ids of nodes with a heartbeat since then. Raises Unreachable while there is none."""
    alive = [
        str(node["id"])
        for node in api.pages(path("nodes"))
        if node["last_seen"] and datetime.fromisoformat(node["last_seen"]) >= since
    ]
    if not alive:
        raise Unreachable("no heartbeat yet")
    return alive
