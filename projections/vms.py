"""VMs: their table and how the API shows them, from a row or from a state that was folded from the log."""

from collections.abc import Mapping

from typing_extensions import TypedDict

from domain.base import Resources
from domain.guest import AddressSource
from domain.mac import derived
from domain.vm import SIZED, Considered, Failure, HostKey, Pending, Phase, Spec, Vm
from domain.vm.kind import VM
from projections.aggregates import COMMON, Aggregates
from projections.database import clean
from projections.operation_rows import WarningView, warnings
from projections.storage import inside
from projections.times import maybe, text


class HostKeyView(TypedDict):
    type: str
    key: str
    fingerprint: str


class PendingView(TypedDict):
    """The pending operation."""

    operation: str
    verb: str
    since: str
    deadline: str


class FailureView(TypedDict):
    code: str
    detail: str
    at: str


class ConsideredView(TypedDict):
    """A node that placement considered; `reason` is null for the chosen one.

    `more` is the number of other nodes, not named here, that were rejected for the same kind of reason.
    """

    node: str
    reason: str | None
    more: int


class AddressSourceView(TypedDict):
    """The source of an address: `agent` (in the guest), `lease` (DHCP), or `arp` (the host's table)."""

    address: str
    source: str


class SizeView(TypedDict):
    vcpus: int
    memory_mib: int
    disk_gib: int


class VmView(TypedDict):
    """A VM as the API shows it. User-data is never shown, only whether the VM has any.

    `warnings` are about the parts of its user-data that will have no effect. `created_by` is the actor who created it.

    `ready` and `ready_at` are about the present boot of the guest, `first_ready_at` is about the first boot on its
    disk. `boots` is the number of boots that were ordered, `guest_boots` the number of all boots of the guest,
    including its own reboots.

    `rescue` is the image that it boots from in place of its own disk, which is then its second disk. `host_keys` are
    those of the disk that it boots from.

    `running_spec` is the size that its domain was started with; `pending_resize`: its next start changes that size.
    """

    id: str
    project: str
    name: str
    phase: str
    desired: str
    ready: bool
    image: str
    rescue: str | None
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
    flavor: str | None
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


def view(state: Vm, version: int, position: int) -> VmView:
    """A VM at an event's version and position."""
    spec = size(state.spec)
    has_domain = state.phase in SIZED
    running = (size(state.running_size) if state.running_size else spec) if has_domain else None
    return {
        "id": state.id,
        "project": state.project,
        "name": state.name,
        "phase": state.phase.value,
        "desired": state.desired.value,
        "ready": state.phase is Phase.RUNNING and state.ready is not None,
        "image": state.image,
        "rescue": state.rescue,
        **spec,
        "running_spec": running,
        "pending_resize": running not in (None, spec),
        "region": state.region,
        "tags": list(state.tags),
        "labels": dict(sorted(state.labels.items())),
        "protected": state.protected,
        "restart_policy": state.restart_policy.value,
        "watchdog": state.watchdog.value,
        "restart_at": maybe(state.restart_at),
        "restarts": state.restarts,
        "description": state.description or None,
        "created_by": state.created_by,
        "flavor": state.flavor,
        "ssh_keys": list(state.ssh_keys),
        "has_user_data": state.user_data is not None and state.user_data.size > 0,
        "warnings": warnings(state.notices),
        "node": state.node,
        "mac": (state.mac or derived(state.id)) if state.node else None,
        "addresses": list(state.addresses) if has_domain else [],
        "address_sources": [sourced(one) for one in state.address_sources] if has_domain else [],
        "host_keys": [host_key(one) for one in state.host_keys],
        "boots": state.boots,
        "guest_boots": state.guest_boots,
        "rebuilds": (state.disk or 1) - 1,
        "pending": pending(state.pending),
        "preparing": state.preparing,
        "failure": failure(state.failure),
        "forgotten": state.forgotten,
        "considered": [considered(one) for one in state.considered],
        "created_at": text(state.created_at),
        "started_at": maybe(state.started_at),
        "ready_at": text(state.ready.at) if state.ready else None,
        "first_ready_at": maybe(state.first_ready_at),
        "updated_at": text(state.updated_at),
        "version": version,
        "position": position,
    }


def size(of: Spec | Resources) -> SizeView:
    return {"vcpus": of.vcpus, "memory_mib": of.memory_mib, "disk_gib": of.disk_gib}


def sourced(of: AddressSource) -> AddressSourceView:
    return {"address": of.address, "source": of.source}


def host_key(of: HostKey) -> HostKeyView:
    return {"type": of.type, "key": of.key, "fingerprint": of.fingerprint}


def considered(of: Considered) -> ConsideredView:
    return {"node": of.node, "reason": of.reason, "more": of.more}


def pending(of: Pending | None) -> PendingView | None:
    if of is None:
        return None
    return {
        "operation": of.operation,
        "verb": str(of.verb),
        "since": text(of.since),
        "deadline": text(of.deadline),
    }


def failure(of: Failure | None) -> FailureView | None:
    if of is None:
        return None
    return {"code": of.code, "detail": of.detail, "at": text(of.at)}


def terms(labels: Mapping[str, str]) -> list[str]:
    """The search terms of labels: each key, and each key with its value."""
    return sorted({clean(term) for key, value in labels.items() for term in (key, f"{key}={value}")})


#: A VM changes about five times in a few seconds. Compressed, two fit into half a page, and the other half has room for
#: their next versions: so the table does not grow with the number of changes.
INSIDE = ("state", "shown", "project", "id", "digest", "name", "phase", "node", "tags", "labels")

VMS = Aggregates[Vm, VmView](
    of=VM,
    revision=17,
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
        "tag": "tags @> ARRAY[%(tag)s] AND tags <> '{}'",
        "label": "labels @> ARRAY[%(label)s] AND labels <> '{}'",
        "name": "name = %(name)s",
        "node": "node = %(node)s",
    },
    ddl=f"""
        CREATE TABLE vms (
            {COMMON}, name text NOT NULL, phase text NOT NULL, node text, tags text[] NOT NULL,
            labels text[] NOT NULL
        ) WITH (fillfactor = 55, toast_tuple_target = 1024);
        {inside("vms", INSIDE, compressed=("state", "shown"))}
        CREATE INDEX ON vms (project, created) WHERE NOT deleted;
        CREATE INDEX ON vms (created) WHERE NOT deleted;
        CREATE INDEX ON vms (project, name, created) WHERE NOT deleted;
        CREATE INDEX ON vms (node, created) WHERE NOT deleted;
        CREATE INDEX ON vms (project, phase, created) WHERE NOT deleted;
        CREATE INDEX ON vms USING gin (labels) WITH (gin_pending_list_limit = 64)
            WHERE NOT deleted AND labels <> '{{}}';
        CREATE INDEX ON vms USING gin (tags) WITH (gin_pending_list_limit = 64) WHERE NOT deleted AND tags <> '{{}}';
    """,
)
