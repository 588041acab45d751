"""The state of each process and manager: alive, how far behind, last success, last error and since when it fails.

Each gateway answers from the reports that it receives, so this works while handlers, Postgres or the log are away. A
value that it cannot read is null.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, get_args

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.contract import ManagerStatus, RoleName, RoleProcess, RoleStatus
from gateway.monitoring.roles import Heard
from gateway.operators import health
from gateway.reads.reads import answer
from gateway.state import Gateway
from projections import pages, times
from projections.database import Away
from projections.nodes import NODES, DaemonView
from runtime import subjects
from runtime.bus.status import tell

#: Roles of which one process at least has to be there.
NEEDED = ("handlers", "projections", "guest-data")
#: All roles, in the order in which they are shown.
ROLES = get_args(RoleName)
#: Seconds without a heartbeat after which a node counts as silent.
NODE_SILENT = 10.0
#: Nodes that are shown.
MOST_NODES = 1000

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class ProcessView(TypedDict):
    """Which process it is. `id` is random, of this very process."""

    id: str
    host: str
    pid: int


class RoleView(TypedDict):
    """One process of a role; `process` is null where none was heard. `lag`: events of the log behind its `position`."""

    role: str
    process: ProcessView | None
    alive: bool
    last_seen: Time | None
    began: Time | None
    position: int | None
    lag: int | None
    last_success: Time | None
    last_error: str | None
    failing_since: Time | None


class ManagerView(TypedDict):
    """One manager where it works; `process` is null, and `alive` false, while it works nowhere.

    `everywhere`: it works in every handlers process, without the lease. `items`: some of what fails.
    """

    name: str
    process: ProcessView | None
    alive: bool
    everywhere: bool
    period: float | None
    last_run: Time | None
    last_success: Time | None
    last_error: str | None
    failing_since: Time | None
    running: int
    backing_off: int
    items: list[str]


class LeaseView(TypedDict):
    """Which process has a lease; `alive`: whether it is heard."""

    name: str
    process: ProcessView | None
    alive: bool


class NodeStatusView(TypedDict):
    """One node that is not retired. `state` and `daemon`, which has its lease: what the log says of it, so far as it
    can be read. The rest: what the daemon says.
    """

    node: str
    alive: bool
    last_seen: Time | None
    state: str | None
    daemon: DaemonView | None
    malformed_documents: int | None
    clock_warning: str | None


class ParkedCounts(TypedDict):
    """Messages that were put aside: those that nobody has closed, all that are known, and those that were only counted
    since there was no room.
    """

    open: int
    total: int
    more: int


class StatusView(TypedDict):
    """How the platform's processes are. `position`: the end of the log; null while it cannot be read."""

    position: int | None
    roles: list[RoleView]
    managers: list[ManagerView]
    leases: list[LeaseView]
    nodes: list[NodeStatusView]
    parked: ParkedCounts


async def status(gateway: Gateway, request: Request) -> Response:
    """What was heard, beside what the log and the read models say."""
    log, nodes = await asyncio.gather(health.end_of_log(gateway), nodes_of(gateway))
    end = log.get("position")
    heard = [*(each for each in gateway.roles.all() if each.said.process.id != gateway.process.id), own(gateway)]
    return answer(
        StatusView(
            position=end,
            roles=roles(heard, end),
            managers=managers(heard),
            leases=[lease(heard)],
            nodes=nodes,
            parked={"open": gateway.parked.open, "total": gateway.parked.total, "more": gateway.parked.more},
        )
    )


# ── roles ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def word(gateway: Gateway, ends: bool) -> RoleStatus:
    """The report of this gateway."""
    return RoleStatus(
        role="gateway",
        process=RoleProcess.model_validate(gateway.process, from_attributes=True),
        began=gateway.began,
        ends=ends,
        position=gateway.position.value,
    )


def own(gateway: Gateway) -> Heard:
    """The same, for its own answers: it needs no bus to hear itself."""
    return Heard(word(gateway, ends=False), datetime.now(UTC), time.monotonic())


async def tell_others(gateway: Gateway) -> None:
    """Say it to all gateways, for ever."""
    subject = subjects.role_status("gateway", gateway.process.id)
    await tell(gateway.nc, subject, lambda ends: word(gateway, ends).model_dump_json().encode())


def roles(heard: Sequence[Heard], end: int | None) -> list[RoleView]:
    """A row for each process, and one for each role that nobody is heard of."""
    found = [role(each, end) for each in heard]
    there = {each["role"] for each in found}
    found += [nobody(name) for name in NEEDED if name not in there]
    return sorted(found, key=lambda each: ROLES.index(each["role"]))


def role(each: Heard, end: int | None) -> RoleView:
    said = each.said
    return {
        "role": said.role,
        "process": process(said.process),
        "alive": each.alive,
        "last_seen": times.text(each.at),
        "began": times.text(said.began),
        "position": said.position,
        "lag": max(end - said.position, 0) if end is not None and said.position is not None else None,
        "last_success": moment(said.last_success),
        "last_error": said.last_error,
        "failing_since": moment(said.failing_since),
    }


def nobody(name: str) -> RoleView:
    return {
        "role": name,
        "process": None,
        "alive": False,
        "last_seen": None,
        "began": None,
        "position": None,
        "lag": None,
        "last_success": None,
        "last_error": None,
        "failing_since": None,
    }


# ── managers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def managers(heard: Sequence[Heard]) -> list[ManagerView]:
    """Each manager where it works; where it works nowhere, what the newest process says that could run it."""
    told = [(each, found) for each in heard for found in each.said.managers]
    shown: list[ManagerView] = []
    for name in dict.fromkeys(found.name for _, found in told):
        all_ = [(each, found) for each, found in told if found.name == name]
        working = [(each, found) for each, found in all_ if found.works]
        alone = [pair for pair in working if not pair[1].everywhere]
        if alone:  # of two that say so, the one that was heard last
            working = [pair for pair in working if pair[1].everywhere] + [max(alone, key=lambda pair: pair[0].heard)]
        shown += [manager(found, each) for each, found in working] or [manager(all_[-1][1], None)]
    return shown


def manager(found: ManagerStatus, where: Heard | None) -> ManagerView:
    return {
        "name": found.name,
        "process": process(where.said.process) if where is not None else None,
        "alive": where is not None and where.alive,
        "everywhere": found.everywhere,
        "period": found.period,
        "last_run": moment(found.last_run),
        "last_success": moment(found.last_success),
        "last_error": found.last_error,
        "failing_since": moment(found.failing_since),
        "running": found.running,
        "backing_off": found.backing_off,
        "items": list(found.items),
    }


def lease(heard: Sequence[Heard]) -> LeaseView:
    """Who has the lease of the managers: by its own word, else by that of the others, the newest first."""
    handlers = sorted((each for each in heard if each.said.role == "handlers"), key=lambda each: -each.heard)
    holders = [each.said.holder for each in handlers if each.said.holder is not None]
    own = [each.said.process for each in handlers if each.alive and each.said.holder == each.said.process]
    holder = next(iter([*own, *holders]), None)
    alive = holder is not None and any(each.said.process == holder and each.alive for each in handlers)
    return {"name": "managers", "process": process(holder) if holder is not None else None, "alive": alive}


# ── nodes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def nodes_of(gateway: Gateway) -> list[NodeStatusView]:
    """The nodes of the read models; those that were heard lately, while the read models are away."""
    try:
        async with asyncio.timeout(health.PATIENCE):
            found = (await pages.matching(gateway.pool, NODES, {}, 0, MOST_NODES)).items
    except (Away, TimeoutError):
        return [node(gateway, name, None, None) for name in gateway.heartbeats.names(MOST_NODES)]
    return [node(gateway, each["id"], each["status"], each["daemon"]) for each in found]


def node(gateway: Gateway, name: str, state: str | None, daemon: DaemonView | None) -> NodeStatusView:
    heard = gateway.heartbeats
    return {
        "node": name,
        "alive": heard.within(name, NODE_SILENT),
        "last_seen": heard.last_seen(name),
        "state": state,
        "daemon": daemon,
        "malformed_documents": heard.unread(name),
        "clock_warning": heard.clock_warning(name),
    }


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def process(of: RoleProcess) -> ProcessView:
    return {"id": of.id, "host": of.host, "pid": of.pid}


def moment(at: datetime | None) -> str | None:
    return times.text(at) if at is not None else None
