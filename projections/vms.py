"""VMs: their table and how the API shows them, whether from a row or folded from the log."""

from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict

from domain.contract import Watchdog
from domain.mac import derived
from domain.vm import SIZED, Phase, RestartPolicy, Vm, evolve
from projections.aggregates import COMMON, Aggregates
from projections.database import clean
from projections.operation_rows import WarningView, warnings
from projections.times import maybe, utc


class HostKeyView(TypedDict):
    type: str
    key: str
    fingerprint: str


class PendingView(TypedDict):
    """The operation under way."""

    operation: str
    verb: str
    since: str
    deadline: str


class FailureView(TypedDict):
    code: str
    detail: str
    at: str


class ConsideredView(TypedDict):
    """A node that placement looked at; `reason` is null for the one it took.

    `more` others, which are not named, were passed over for a reason of the same kind.
    """

    node: str
    reason: str | None
    more: int


class AddressSourceView(TypedDict):
    """Who says that the guest has this address: `agent`, the one in it; `lease`, DHCP; `arp`, its host's table."""

    address: str
    source: str


class SizeView(TypedDict):
    vcpus: int
    memory_mib: int
    disk_gib: int


class VmView(TypedDict):
    """A VM as the API shows it. User-data is never shown, only whether there is some.

    `warnings` say what its user-data will not do. `created_by` is the actor who made it.

    `ready` and `ready_at` are of this very boot of the guest, `first_ready_at` of the first one on its disk. `boots` is
    how often it was told to boot, `guest_boots` how often its guest did, its own reboots among them.

    `running_spec` is what its domain was started with; `pending_resize` says that its next start changes that.
    """

    id: str
    project: str
    name: str
    phase: str
    desired: str
    ready: bool
    image: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    running_spec: SizeView | None
    pending_resize: bool
    region: str | None
    tags: list[str]
    labels: dict[str, str]
    protected: bool
    restart_policy: str
    watchdog: str
    restart_at: str | None
    restarts: int
    description: str | None
    created_by: str | None
    ssh_keys: list[str]
    has_user_data: bool
    warnings: list[WarningView]
    node: str | None
    mac: str | None
    addresses: list[str]
    address_sources: list[AddressSourceView]
    host_keys: list[HostKeyView]
    boots: int
    guest_boots: int
    rebuilds: int
    pending: PendingView | None
    preparing: str | None
    failure: FailureView | None
    forgotten: str | None
    considered: list[ConsideredView]
    created_at: str
    started_at: str | None
    ready_at: str | None
    first_ready_at: str | None
    updated_at: str
    version: int
    position: int


def view(state: dict[str, Any], version: int, position: int) -> VmView:
    """A VM's JSON, from the JSON of its state as of an event's version and position."""
    spec = state["spec"]
    get = state.get
    there = state["phase"] in SIZED
    running = size(get("running_size") or spec) if there else None
    return {
        "id": state["id"],
        "project": state["project"],
        "name": state["name"],
        "phase": state["phase"],
        "desired": state["desired"],
        "ready": state["phase"] == Phase.RUNNING and get("ready") is not None,
        "image": state["image"],
        "vcpus": spec["vcpus"],
        "memory_mib": spec["memory_mib"],
        "disk_gib": spec["disk_gib"],
        "running_spec": running,
        "pending_resize": running not in (None, size(spec)),
        "region": get("region"),
        "tags": list(get("tags") or ()),
        "labels": dict(sorted((get("labels") or {}).items())),
        "protected": bool(get("protected")),
        "restart_policy": get("restart_policy") or RestartPolicy.NO.value,
        "watchdog": get("watchdog") or Watchdog.DISABLED.value,
        "restart_at": maybe(get("restart_at")),
        "restarts": get("restarts") or 0,
        "description": get("description") or None,
        "created_by": get("created_by"),
        "ssh_keys": list(get("ssh_keys") or ()),
        "has_user_data": bool((get("user_data") or {}).get("size")),
        "warnings": warnings(get("notices")),
        "node": get("node"),
        "mac": (get("mac") or derived(state["id"])) if get("node") else None,
        "addresses": list(get("addresses") or ()) if there else [],
        "address_sources": [
            {"address": one["address"], "source": one["source"]}
            for one in (get("address_sources") or () if there else ())
        ],
        "host_keys": [
            {"type": key["type"], "key": key["key"], "fingerprint": key["fingerprint"]}
            for key in get("host_keys") or ()
        ],
        "boots": state["boots"],
        "guest_boots": get("guest_boots") or 0,
        "rebuilds": (get("disk") or 1) - 1,
        "pending": pending(get("pending")),
        "preparing": get("preparing"),
        "failure": failure(get("failure")),
        "forgotten": get("forgotten"),
        "considered": [
            {"node": one["node"], "reason": one.get("reason"), "more": one.get("more", 0)}
            for one in get("considered") or ()
        ],
        "created_at": utc(state["created_at"]),
        "started_at": maybe(get("started_at")),
        "ready_at": maybe((get("ready") or {}).get("at")),
        "first_ready_at": maybe(get("first_ready_at")),
        "updated_at": utc(state["updated_at"]),
        "version": version,
        "position": position,
    }


def size(of: dict[str, Any]) -> SizeView:
    return {"vcpus": of["vcpus"], "memory_mib": of["memory_mib"], "disk_gib": of["disk_gib"]}


def pending(state: dict[str, Any] | None) -> PendingView | None:
    if state is None:
        return None
    return {
        "operation": state["operation"],
        "verb": state["verb"],
        "since": utc(state["since"]),
        "deadline": utc(state["deadline"]),
    }


def failure(state: dict[str, Any] | None) -> FailureView | None:
    if state is None:
        return None
    return {"code": state["code"], "detail": state["detail"], "at": utc(state["at"])}


def terms(labels: Mapping[str, str]) -> list[str]:
    """What a VM is found by, of its labels: each key, and each key with its value."""
    return sorted({clean(term) for key, value in labels.items() for term in (key, f"{key}={value}")})


VMS = Aggregates[Vm](
    kind="vm",
    table="vms",
    revision=10,
    model=Vm,
    evolve=evolve,
    deleted=lambda state: state.phase is Phase.DELETED,
    columns={
        "name": lambda state: state.name,
        "phase": lambda state: state.phase.value,
        "node": lambda state: state.node,
        "tags": lambda state: list(state.tags),
        "labels": lambda state: terms(state.labels),
    },
    view=view,
    filters={
        "project": "project = %(project)s",
        "phase": "phase = %(phase)s",
        "tag": "tags @> ARRAY[%(tag)s]",
        "label": "labels @> ARRAY[%(label)s]",
        "name": "name = %(name)s",
        "node": "node = %(node)s",
    },
    ddl=f"""
        CREATE TABLE vms (
            {COMMON}, name text NOT NULL, phase text NOT NULL, node text, tags text[] NOT NULL,
            labels text[] NOT NULL
        ) WITH (fillfactor = 70);
        CREATE INDEX ON vms (project, created) WHERE NOT deleted;
        CREATE INDEX ON vms (project, name) WHERE NOT deleted;
        CREATE INDEX ON vms (node) WHERE NOT deleted;
    """,
)
