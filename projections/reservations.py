"""What each node has promised to each VM: one row for each promise. A node's own row has only their sum."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from domain.base import Resources, replace
from domain.node import CapacityReleased, CapacityReserved, Node
from eventstore.log.envelope import Ref
from projections import bulk
from projections.database import Connection, key, select
from projections.model import Batch, ReadModel, Row, Session, Step, changes

DDL = """
CREATE TABLE reservations (
    node       text NOT NULL,
    vm         text NOT NULL,
    vcpus      bigint NOT NULL,
    memory_mib bigint NOT NULL,
    disk_gib   bigint NOT NULL,
    PRIMARY KEY (node, vm)
);
"""


class Promise(NamedTuple):
    """A node and a VM, by their ids."""

    node: str
    vm: str

    @property
    def key(self) -> tuple[str, str]:
        """The key of its row. An id that is no text for an index is replaced by its hash."""
        if key(self.vm) == self.vm:
            return self.node, self.vm
        return self.node, f"sha256:{hashlib.sha256(self.vm.encode()).hexdigest()}"


async def load(conn: Connection, batch: Batch) -> dict[Promise, Resources | None]:
    """The stored promises that a batch may change."""
    requested = {
        promise.key: promise
        for recorded, event in batch.events
        if isinstance(event, CapacityReserved | CapacityReleased)
        for promise in [Promise(recorded.ref.id, event.vm)]
    }
    if not requested:
        return {}
    stored = await select(
        conn,
        bulk.lookup("reservations", ("node", "vm"), "node, vm, vcpus, memory_mib, disk_gib"),
        [[node for node, _ in requested], [vm for _, vm in requested]],
    )
    return {
        requested[row["node"], row["vm"]]: Resources(
            vcpus=row["vcpus"], memory_mib=row["memory_mib"], disk_gib=row["disk_gib"]
        )
        for row in stored
    }


def complete(promises: Mapping[Promise, Resources | None], rows: dict[Ref, Row[Node]]) -> None:
    """Name the VMs of these promises in the states of their nodes."""
    of_nodes: dict[str, list[tuple[str, Resources]]] = {}
    for promise, resources in promises.items():
        if resources is not None:
            of_nodes.setdefault(promise.node, []).append((promise.vm, resources))
    for ref in [ref for ref in rows if ref.kind == "node" and ref.id in of_nodes]:
        state = rows[ref].state
        if state is None:
            continue
        named = state.reservations
        for vm, resources in of_nodes[ref.id]:
            if vm not in named:
                named = named.name(vm, resources)
        rows[ref] = rows[ref]._replace(state=replace(state, reservations=named))


def fold(promises: dict[Promise, Resources | None], step: Step[Node]) -> None:
    event, node = step.event, step.row.state if step.row is not None else None
    if node is not None and isinstance(event, CapacityReserved | CapacityReleased):
        promises[Promise(step.recorded.ref.id, event.vm)] = node.reservations.get(event.vm)


async def save(
    session: Session, before: Mapping[Promise, Resources | None], after: Mapping[Promise, Resources | None]
) -> None:
    """Write the promises that have changed; delete those that were released."""
    changed = changes(before, after)
    new, old = list[bulk.Values](), list[bulk.Values]()
    for promise, of in changed.items():
        if of is not None:
            values = (*promise.key, of.vcpus, of.memory_mib, of.disk_gib)
            (old if before.get(promise) is not None else new).append(values)
    await bulk.write(session.conn, TABLE, new, old, many=session.many)
    await bulk.delete(session.conn, TABLE, [promise.key for promise, of in changed.items() if of is None])


TABLE = bulk.Table.of(DDL, "reservations", ("node", "vm"))

RESERVATIONS = ReadModel(
    name="reservations",
    version=1,
    ddl=DDL,
    tables=("reservations",),
    kinds=("node",),
    load=load,
    completes=complete,
    fold=fold,
    save=save,
    served=False,
)
