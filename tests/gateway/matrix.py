"""All calls of the API, what there is for them, and what each role may do, as `domain.access` says it.

The gateway's own code of permissions is not used here: only its tables of calls, and the permission of each.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from nats.aio.msg import Msg

from domain.access import (
    CLOUD_ROLES,
    EVENT_READ,
    OPERATION_READ,
    PARKED_READ,
    PROJECT_READ,
    PROJECT_ROLES,
    Access,
    Grant,
    Permission,
    Role,
)
from domain.kinds import KINDS
from eventstore.parking.parking import Parking
from gateway.commands.actions import ACTIONS, Action
from gateway.reads.read import Read
from gateway.table.reads import READS
from gateway.table.vms import TUNNELS
from tests.gateway.platform import SPEC, Platform, served
from tests.waiting import eventually

OWN, OTHER, NOWHERE = "own-one", "foreign", "nowhere"
CALLS: tuple[Read | Action, ...] = (*READS, *ACTIONS)
#: One caller for each role, one without any, and one with a token for reading only.
CALLERS: Mapping[str, Access] = {
    "none": Access("user:a-none"),
    **{role: Access(f"user:a-{role}", frozenset({Grant(role, OWN)})) for role in PROJECT_ROLES},
    **{role: Access(f"user:a-{role}", frozenset({Grant(role)})) for role in CLOUD_ROLES},
    "reader": Access("user:a-reader", frozenset({Grant(Role.ADMIN, OWN)}), read_only=True),
}
READABLE = {
    **{kind.name: kind.readable_by for kind in KINDS.values()},
    "operation": OPERATION_READ,
    "event": EVENT_READ,
    "source": PARKED_READ,
    "project": PROJECT_READ,
}
#: The kinds of which a resource may belong to a project, or to the whole cloud.
OWNED = ("image", "flavor")


@dataclass
class World:
    """A platform, a gateway that knows CALLERS, and what there is, by place and by the name that it has in paths."""

    api: Platform
    gateway: Any
    http: httpx.AsyncClient
    ids: Mapping[str, Mapping[str, str]]
    tokens: Mapping[str, str]

    async def call(self, who: str, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
        """One call of a caller. Of a feed, only the headers are read."""
        sent = {"Authorization": f"Bearer {self.tokens[who]}", **headers}
        if path in ("/v1/feed",) or path.endswith("/feed"):
            async with self.http.stream(method, path, headers=sent) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                return answer
        return await self.http.request(method, path, json=body, headers=sent)

    async def all_of(self, who: str, path: str) -> list[dict[str, Any]]:
        """All items of a list."""
        found: list[dict[str, Any]] = []
        token, sign = None, "&" if "?" in path else "?"
        while True:
            page = await self.call(who, "GET", f"{path}{sign}limit=50{f'&page_token={token}' if token else ''}")
            assert page.status_code == 200, page.text
            found += page.json()["items"]
            token = page.json()["next_page_token"]
            if token is None:
                return found


@asynccontextmanager
async def world(api: Platform) -> AsyncIterator[World]:
    """Two projects with the same things in each, the same in no project, and a gateway with roles."""
    ids: dict[str, dict[str, str]] = {}
    await made(api, "/v1/tags", {"name": "Blue"})
    await made(api, "/v1/users", {"id": "somebody", "name": "Somebody"})
    await made(api, "/v1/service-accounts", {"id": "something", "name": "Something"})
    await Parking(api.side.nc).park("log", "p-1", subject="nebula.events.x", position=10**6, error="nonsense")
    cloud = {
        "tag": "blue",
        "node": "host-1",
        "user": "somebody",
        "service_account": "something",
        "source": "log",
        "key": "p-1",
    }
    for place in (OWN, OTHER):
        await made(api, "/v1/projects", {"id": place, "name": place})
        ids[place] = {"project": place, **await made_in(api, place, place)}
    ids["cloud"] = {**cloud, **await made_in(api, "", OWN)}
    ids[NOWHERE] = {"project": NOWHERE, "vm": str(uuid.uuid4())}
    tokens = {who: await token_of(api, who, access) for who, access in CALLERS.items()}
    await api.side.nc.subscribe("nebula.nodes.host-1.asks.host-usage", cb=keeps_no_usage)
    settings = {"auth": "tokens", "tokens_file": api.side.home / "none", "refusals_per_minute": 1_000_000}
    (api.side.home / "none").write_text("")
    async with (
        served(api.side, api.dsn, **settings) as (gateway, url),
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):

        async def parked() -> bool:
            return len((await api.get("/v1/parked"))["items"]) == 1 == gateway.parked.open

        await eventually(parked, "the parked message is known")
        made_world = World(api, gateway, http, ids, tokens)

        async def known() -> bool:
            return (await made_world.call([*CALLERS][-1], "GET", "/v1/me")).status_code == 200

        await eventually(known, "the gateway knows the tokens")
        await gateway.caught_up()  # what was made above went through another gateway
        yield made_world


async def keeps_no_usage(msg: Msg) -> None:
    """The answer of host-1, which has no daemon here."""
    problem = {"code": "usage_not_kept", "detail": "this node keeps no usage", "status": 409}
    await msg.respond(json.dumps({"problem": problem}).encode())


async def token_of(api: Platform, who: str, access: Access) -> str:
    """A token of a new user with the roles of a caller."""
    user = access.principal.removeprefix("user:")
    await made(api, "/v1/users", {"id": user, "name": user})
    for role, project in access.grants:
        if project is None:
            await made(api, f"/v1/users/{user}/bind", {"role": role})
        else:
            await made(api, f"/v1/projects/{project}/bind", {"principal": access.principal, "role": role})
    secret: str = (
        await made(api, "/v1/tokens", {"name": who, "principal": access.principal, "read_only": access.read_only})
    )["secret"]
    return secret


async def made_in(api: Platform, owner: str, project: str) -> dict[str, str]:
    """An image and a flavor of an owner (none: of the cloud), and a VM of a project that is made of them."""
    belongs = {"project": owner} if owner else {}
    name = owner or "cloud"
    image = {"id": f"image-{name}", "name": "I", "source": str(api.side.home / "base.raw"), **belongs}
    await made(api, "/v1/images?wait=30s", image)
    await made(api, "/v1/flavors", {"id": f"flavor-{name}", "name": "F", **SPEC, **belongs})
    given = {"name": "v", "image": f"image-{name}", "flavor": f"flavor-{name}", "region": "elsewhere"}
    vm = await made(api, f"/v1/projects/{project}/vms", given)
    registered = (await api.get(f"/v1/operations?kind=image&project={owner or 'system'}"))["items"]
    operation = vm["operation"] if owner else next(op for op in registered if op["resource"] == "base")
    return {
        "image": f"image-{name}",
        "flavor": f"flavor-{name}",
        "vm": vm["vm"]["id"],
        "operation": operation["id"],
        "event": str(operation["position"]),
    }


async def made(api: Platform, path: str, body: object) -> dict[str, Any]:
    answer = await api.call("POST", path, body)
    assert answer.status_code in (200, 202), answer.text
    found: dict[str, Any] = answer.json()
    return found


# ── the calls ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Try:
    """One call at one place: where it is, what it sends, and the project that owns what it is about (None: the cloud).

    `names`: the first thing that the path names; None if it names none. `exists`: whether that exists.
    """

    call: Read | Action
    place: str
    path: str
    names: str | None
    owner: str | None
    body: object = None
    creates: bool = False
    exists: bool = True

    def __str__(self) -> str:
        return f"{self.call.method} {self.path} ({self.call.permission}, {self.place})"


def tries(ids: Mapping[str, Mapping[str, str]]) -> Iterator[Try]:
    """Each call at each place where it can be. A command is on what exists, and has a body that changes nothing."""
    for call in CALLS:
        names = [part[1:-1] for part in call.path.split("/") if part.startswith("{")]
        creates = isinstance(call, Action) and call.creates
        for place, there in ids.items():
            if "project" in names and place != "cloud":
                missing = {"vm": str(uuid.uuid4())} if isinstance(call, Action) else {}  # so nothing is deleted
                known = {**dict.fromkeys(names, "none"), **there, **missing}
                path = call.path.format_map(known)
                yield Try(call, place, path, "project", there["project"], {}, exists=place != NOWHERE)
            elif names and "project" not in names and (names[0] in there or place == "cloud"):
                owner, exists = None if place == "cloud" else place, names[0] in there
                path = call.path.format_map({**dict.fromkeys(names, "none"), **there})
                yield Try(call, place, path, names[0], owner, {}, exists=exists)
            elif isinstance(call, Action) and creates and not names and call.kind in OWNED:
                project = {"project": place} if place != "cloud" else {}
                body = {"id": f"new-{uuid.uuid4().hex[:8]}", "name": "N", **project, **NEW[call.kind]}
                yield Try(
                    call, place, call.path, None, project.get("project"), body, creates=True, exists=place != NOWHERE
                )
            elif not names and place == "cloud":
                yield Try(call, place, call.path, None, None, {})


#: What a new image or flavor needs; the image is one that cannot be fetched.
NEW: Mapping[str, Mapping[str, Any]] = {"image": {"source": "http://127.0.0.1:9/none"}, "flavor": SPEC}


# ── what is right ───────────────────────────────────────────────────────────────────────────────────────────────────


def expected(access: Access, a: Try) -> frozenset[str]:
    """`allowed`, `forbidden` (403) or `hidden` (as if it did not exist). What does not exist is hidden from all."""
    found = judged(access, a)
    return frozenset({found} if a.exists or found != "allowed" else {"allowed", "hidden"})


def judged(access: Access, a: Try) -> str:
    """The same for what exists."""
    permission = a.call.permission
    if access.may(permission, a.owner):
        return "allowed"
    if a.names is not None:
        return "forbidden" if access.may(READABLE[a.names], a.owner) else "hidden"
    if not anywhere(access, permission):
        return "forbidden"
    if a.creates:
        return "hidden" if a.owner is not None and not access.may(PROJECT_READ, a.owner) else "forbidden"
    return "allowed"


def anywhere(access: Access, permission: Permission) -> bool:
    return any(access.may(permission, place) for place in (None, OWN, OTHER))


async def outcome(world: World, who: str, a: Try) -> str:
    """What the gateway did. Raises AssertionError for an answer that is neither."""
    websocket = {}
    if a.call.path in TUNNELS:
        websocket = {
            **{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
    sends = a.call.method not in ("GET", "DELETE")
    answer = await world.call(who, a.call.method, a.path, a.body if sends else None, **websocket)
    status = answer.status_code
    assert status < 500 and status != 401, (who, str(a), answer.text)
    code = "" if status < 400 else answer.json()["code"]
    if code == "forbidden":
        assert status == 403
        return "forbidden"
    hidden = {"source": "parked_not_found"}.get(a.names or "", f"{a.names or 'project'}_not_found")
    if code == hidden:
        return "hidden"
    assert status != 403, (who, str(a), answer.text)
    return "allowed"


async def together(jobs: list[Any], at_once: int = 8) -> list[Any]:
    """The results of coroutines, a few at a time."""
    room = asyncio.Semaphore(at_once)

    async def one(job: Any) -> Any:
        async with room:
            return await job

    return list(await asyncio.gather(*map(one, jobs)))
