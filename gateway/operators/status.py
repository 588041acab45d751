"""The state of each process and manager: alive, how far behind, last success, last error and since when it fails.

Each gateway answers from the reports that it receives, so this works while handlers, Postgres or the log are down. A
value that it cannot read is null.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import get_args

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from domain.contract import ManagerStatus, RoleName, RoleProcess, RoleStatus
from gateway.monitoring.roles import Report
from gateway.operators import health, past_status
from gateway.reads.reads import answer
from gateway.state import Gateway
from projections import pages, times
from projections.database import ReadModelsUnavailable
from projections.nodes import NODES, DaemonView
from runtime import subjects
from runtime.bus import status as bus_status
from runtime.version import VERSION

#: Roles that need at least one process.
NEEDED = ("handlers", "projections", "guest-data")
#: All roles, in the order in which they are shown.
ROLES = get_args(RoleName)
#: Seconds without a heartbeat after which a node counts as silent.
NODE_SILENT = 10.0
#: Maximum number of nodes that are shown.
MOST_NODES = 1000

Time = past_status.Time


class ProcessView(TypedDict):
    """A process. `id` is random, and different for each start."""

    id: str
    host: str
    pid: int


class RoleView(TypedDict):
    """One process of a role; `process` is null if none reports. `lag`: events of the log after its `position`.

    `version`: of its programs; null if it is one that does not say so. `past`: of projections that keep the past.
    """

    role: str
    process: ProcessView | None
    version: str | None
    alive: bool
    last_seen: Time | None
    began: Time | None
    position: int | None
    lag: int | None
    last_success: Time | None
    last_error: str | None
    failing_since: Time | None
    past: past_status.PastView | None


class ManagerView(TypedDict):
    """One manager and the process that runs it; `process` is null, and `alive` false, while no process runs it.

    `everywhere`: it runs in every handlers process, without the lease. `items`: some of the items that fail.
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
    """The process that has a lease; `alive`: whether it sends reports."""

    name: str
    process: ProcessView | None
    alive: bool


class NodeStatusView(TypedDict):
    """One node that is not retired. Most values are from its daemon's heartbeats.

    `state`, and the `daemon` that has its lease, are from the read models; null while these cannot be read.
    """

    node: str
    alive: bool
    last_seen: Time | None
    state: str | None
    daemon: DaemonView | None
    malformed_documents: int | None
    clock_warning: str | None


class ParkedCounts(TypedDict):
    """Parked messages: open ones, all in the index, and those that were only counted because there was no room."""

    open: int
    total: int
    more: int


class StatusView(TypedDict):
    """The state of the platform's processes. `position`: the end of the log; null while it cannot be read."""

    position: int | None
    roles: list[RoleView]
    managers: list[ManagerView]
    leases: list[LeaseView]
    nodes: list[NodeStatusView]
    parked: ParkedCounts


async def status(gateway: Gateway, request: Request) -> Response:
    """The reports of processes and nodes, with the log's and the read models' data."""
    log, nodes = await asyncio.gather(health.end_of_log(gateway), nodes_of(gateway))
    end = log.get("position")
    reports = [*(each for each in gateway.roles.all() if each.status.process.id != gateway.process.id), own(gateway)]
    return answer(
        StatusView(
            position=end,
            roles=roles(reports, end),
            managers=managers(reports),
            leases=[lease(reports)],
            nodes=nodes,
            parked={"open": gateway.parked.open, "total": gateway.parked.total, "more": gateway.parked.more},
        )
    )


# ── roles ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def own_status(gateway: Gateway, ends: bool) -> RoleStatus:
    """The report of this gateway."""
    return RoleStatus(
        role="gateway",
        process=RoleProcess.model_validate(gateway.process, from_attributes=True),
        began=gateway.began,
        version=VERSION,
        ends=ends,
        position=gateway.position.value,
    )


def own(gateway: Gateway) -> Report:
    """The same as a received report, for the gateway's own answers."""
    return Report(own_status(gateway, ends=False), datetime.now(UTC), time.monotonic())


async def publish_status(gateway: Gateway) -> None:
    """Publish the report of this gateway, for ever."""
    subject = subjects.role_status("gateway", gateway.process.id)
    await bus_status.publish_status(
        gateway.nc, subject, lambda ends: own_status(gateway, ends).model_dump_json().encode()
    )


def roles(reports: Sequence[Report], end: int | None) -> list[RoleView]:
    """A row for each process, and one for each needed role without a report."""
    found = [role(each, end) for each in reports]
    present = {each["role"] for each in found}
    found += [missing(name) for name in NEEDED if name not in present]
    return sorted(found, key=lambda each: ROLES.index(each["role"]))


def role(each: Report, end: int | None) -> RoleView:
    status = each.status
    return {
        "role": status.role,
        "process": process(status.process),
        "version": status.version or None,
        "alive": each.alive,
        "last_seen": times.text(each.at),
        "began": times.text(status.began),
        "position": status.position,
        "lag": max(end - status.position, 0) if end is not None and status.position is not None else None,
        "last_success": moment(status.last_success),
        "last_error": status.last_error,
        "failing_since": moment(status.failing_since),
        "past": past_status.shown(status.past, end),
    }


def missing(name: str) -> RoleView:
    return {
        "role": name,
        "process": None,
        "version": None,
        "alive": False,
        "last_seen": None,
        "began": None,
        "position": None,
        "lag": None,
        "last_success": None,
        "last_error": None,
        "failing_since": None,
        "past": None,
    }


# ── managers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def managers(reports: Sequence[Report]) -> list[ManagerView]:
    """Each manager in the process that runs it. If no process runs it: as the last process reports it."""
    reported = [(each, found) for each in reports for found in each.status.managers]
    shown: list[ManagerView] = []
    for name in dict.fromkeys(found.name for _, found in reported):
        all_ = [(each, found) for each, found in reported if found.name == name]
        working = [(each, found) for each, found in all_ if found.works]
        alone = [pair for pair in working if not pair[1].everywhere]
        if alone:  # if two report it, the newest report counts
            working = [pair for pair in working if pair[1].everywhere] + [max(alone, key=lambda pair: pair[0].received)]
        shown += [manager(found, each) for each, found in working] or [manager(all_[-1][1], None)]
    return shown


def manager(found: ManagerStatus, where: Report | None) -> ManagerView:
    return {
        "name": found.name,
        "process": process(where.status.process) if where is not None else None,
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


def lease(reports: Sequence[Report]) -> LeaseView:
    """The holder of the lease of the managers: by its own report, else by the newest report of another process."""
    handlers = sorted((each for each in reports if each.status.role == "handlers"), key=lambda each: -each.received)
    holders = [each.status.holder for each in handlers if each.status.holder is not None]
    own = [each.status.process for each in handlers if each.alive and each.status.holder == each.status.process]
    holder = next(iter([*own, *holders]), None)
    alive = holder is not None and any(each.status.process == holder and each.alive for each in handlers)
    return {"name": "managers", "process": process(holder) if holder is not None else None, "alive": alive}


# ── nodes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def nodes_of(gateway: Gateway) -> list[NodeStatusView]:
    """The nodes of the read models. While the read models are down: the nodes that sent heartbeats."""
    try:
        async with asyncio.timeout(health.PATIENCE):
            found = (await pages.matching(gateway.pool, NODES, {}, 0, MOST_NODES, mine=None)).items
    except (ReadModelsUnavailable, TimeoutError):
        return [node(gateway, name, None, None) for name in gateway.heartbeats.names(MOST_NODES)]
    return [node(gateway, each["id"], each["status"], each["daemon"]) for each in found]


def node(gateway: Gateway, name: str, state: str | None, daemon: DaemonView | None) -> NodeStatusView:
    heartbeats = gateway.heartbeats
    return {
        "node": name,
        "alive": heartbeats.within(name, NODE_SILENT),
        "last_seen": heartbeats.last_seen(name),
        "state": state,
        "daemon": daemon,
        "malformed_documents": heartbeats.unread(name),
        "clock_warning": heartbeats.clock_warning(name),
    }


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def process(of: RoleProcess) -> ProcessView:
    return {"id": of.id, "host": of.host, "pid": of.pid}


def moment(at: datetime | None) -> str | None:
    return times.text(at) if at is not None else None
