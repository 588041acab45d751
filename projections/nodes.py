"""Nodes: their table and how the API shows them.

A row has the sum of a node's reservations. The reservations have rows of their own (`reservations.py`): otherwise the
row of a node would grow with its VMs, and each of their events would write all of it.
"""

from typing_extensions import TypedDict

from domain.base import Resources, replace
from domain.node import Node, RegisteredInfo
from domain.node.kind import NODE
from projections.aggregates import COMMON, Aggregates
from projections.times import maybe, text


class Amount(TypedDict):
    vcpus: int
    memory_mib: int
    disk_gib: int


class ImageCacheView(TypedDict):
    """Base images that a node keeps. `budget_bytes` is null if there is no limit."""

    images: int
    bytes: int
    budget_bytes: int | None


class WaitingView(TypedDict):
    """A daemon of the same name that does nothing until the working one has ended."""

    host: str
    pid: int


class DaemonView(TypedDict):
    """The daemon that works for a node."""

    host: str
    pid: int
    since: str
    lease: int


class NodeView(TypedDict):
    """A node as the API shows it. `reserved` is what is promised to its `vms` VMs. `last_seen` is the time of its last
    heartbeat; `image_cache` comes from that heartbeat. `clock_offset_seconds`: how far its clock is ahead of the
    gateway's (negative: behind); `clock_warning` is a sentence if that is too much.

    `status` is lost, cordoned or ready; for a node that was just retired: retired.
    """

    id: str
    status: str
    region: str
    virt_type: str
    architecture: str
    agent_version: str
    capacity: Amount
    reserved: Amount
    vms: int
    cordoned: bool
    lost: bool
    retired_at: str | None
    registered_at: str
    updated_at: str
    daemon: DaemonView | None
    waiting: list[WaitingView]
    malformed_documents: int | None
    last_seen: str | None
    clock_offset_seconds: float | None
    clock_warning: str | None
    image_cache: ImageCacheView | None
    version: int
    position: int


class HeartbeatView(TypedDict):
    """The members of `NodeView` that a gateway knows from heartbeats. They stand next to each other."""

    waiting: list[WaitingView]
    malformed_documents: int | None
    last_seen: str | None
    clock_offset_seconds: float | None
    clock_warning: str | None
    image_cache: ImageCacheView | None


#: What a row says of heartbeats. In the JSON of a node these are the members from `waiting` to `image_cache`.
NO_HEARTBEAT: HeartbeatView = {
    "waiting": [],
    "malformed_documents": None,
    "last_seen": None,
    "clock_offset_seconds": None,
    "clock_warning": None,
    "image_cache": None,
}


def amount(of: RegisteredInfo | Resources) -> Amount:
    return {"vcpus": of.vcpus, "memory_mib": of.memory_mib, "disk_gib": of.disk_gib}


def daemon_view(state: Node) -> DaemonView | None:
    holder = state.holder
    if holder is None:
        return None
    return {"host": holder.host, "pid": holder.pid, "since": text(holder.since), "lease": state.lease}


def status(state: Node) -> str:
    if state.retired_at is not None:
        return "retired"
    return "lost" if state.lost else "cordoned" if state.cordoned else "ready"


def view(state: Node, version: int, position: int) -> NodeView:
    info = state.info
    return {
        "id": state.id,
        "status": status(state),
        "region": info.region,
        "virt_type": info.virt_type,
        "architecture": info.architecture or "x86_64",
        "agent_version": info.version,
        "capacity": amount(info),
        "reserved": amount(state.reserved()),
        "vms": state.reservations.vms,
        "cordoned": state.cordoned,
        "lost": state.lost,
        "retired_at": maybe(state.retired_at),
        "registered_at": text(state.registered_at),
        "updated_at": text(state.updated_at),
        "daemon": daemon_view(state),
        **NO_HEARTBEAT,
        "version": version,
        "position": position,
    }


NODES = Aggregates[Node, NodeView](
    of=NODE,
    ended="retired",
    columns={"region": lambda state: state.info.region},
    view=view,
    kept=lambda state: replace(state, reservations=state.reservations.unnamed()),
    revision=12,
    filters={"region": "region = %(region)s"},
    ddl=f"""
        CREATE TABLE nodes ({COMMON}, region text NOT NULL) WITH (fillfactor = 20);
        CREATE INDEX ON nodes (created) WHERE NOT deleted;
        CREATE INDEX ON nodes (region, created) WHERE NOT deleted;
    """,
)
