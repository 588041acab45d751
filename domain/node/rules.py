"""Which events follow from a command on a node."""

from typing import assert_never

from domain.accepted_requests import same_request
from domain.base import Category, Rejected
from domain.node.commands import (
    ChangeReservation,
    CordonNode,
    LoseNode,
    NodeCommands,
    RecoverNode,
    RegisterNode,
    Release,
    Reserve,
    RetireNode,
    ReturnLease,
    SetSeedUrl,
    UncordonNode,
)
from domain.node.events import (
    CapacityReleased,
    CapacityReserved,
    NodeCordoned,
    NodeEvents,
    NodeLeased,
    NodeLeaseReturned,
    NodeLost,
    NodeRecovered,
    NodeRegistered,
    NodeRetired,
    NodeUncordoned,
    SeedUrlSet,
    stored,
)
from domain.node.state import Holder, Node

#: Maximum number of VMs that a refusal names.
MOST_NAMED = 3


def decide(node: Node | None, command: NodeCommands) -> list[NodeEvents]:
    """The events that follow from a command on a node. Raises Rejected."""
    if isinstance(command, RegisterNode):
        if command.info.node != command.node:
            detail = f"the info is about node {command.info.node}, but the command is about node {command.node}"
            raise Rejected("invalid_request", detail, Category.INVALID, field="info.node")
        if not command.signed and (command.keyed if node is None else node.signs):
            raise unsigned(command.node)
        if command.latest is not None and command.latest != (node.lease if node is not None else 0):
            raise Rejected("lease_changed", f"another daemon of node {command.node} got the lease meanwhile; try again")
        info = stored(command.info)
        if node is not None:  # after the first registration only the operator changes the seed URL
            info = info.with_seed_url(node.info.seed_url)
        if node is not None and node.retired_at is not None and not command.take_over:
            raise retired_node_registers(node)
        leased = lease(node, command)
        if node is not None and node.info == info and node.retired_at is None:
            return leased
        return [NodeRegistered(at=command.at, info=info), *leased]
    if node is None:
        raise Rejected("node_not_found", f"there is no node {command.node}", Category.NOT_FOUND, field="node")
    if node.retired_at is not None:
        return decide_retired(node, command)
    match command:
        case ReturnLease():
            if node.signs and not command.signed:
                raise unsigned(node.id)
            if node.holder is None or node.holder.boot != command.boot:
                return []
            return [NodeLeaseReturned(at=command.at, lease=node.lease)]
        case SetSeedUrl():
            known = node.operations.get(command.operation)
            if same_request(known, command.VERB, command.fingerprint):
                return []
            return [
                SeedUrlSet(
                    at=command.at,
                    operation=command.operation,
                    fingerprint=command.fingerprint,
                    seed_url=command.seed_url,
                )
            ]
        case Reserve():
            if command.vm in node.reservations and not command.again:
                return []
            return [CapacityReserved(at=command.at, vm=command.vm, resources=command.resources)]
        case ChangeReservation():
            if node.reservations.get(command.vm) in (None, command.resources):
                return []
            return [CapacityReserved(at=command.at, vm=command.vm, resources=command.resources)]
        case Release():
            return [CapacityReleased(at=command.at, vm=command.vm)] if command.vm in node.reservations else []
        case LoseNode():
            return [] if node.lost else [NodeLost(at=command.at, silent_seconds=command.silent_seconds)]
        case RecoverNode():
            return [NodeRecovered(at=command.at)] if node.lost else []
        case CordonNode() | UncordonNode():
            known = node.operations.get(command.operation)
            if same_request(known, command.VERB, command.fingerprint):
                return []
            event = NodeCordoned if isinstance(command, CordonNode) else NodeUncordoned
            return [event(at=command.at, operation=command.operation, fingerprint=command.fingerprint)]
        case RetireNode():
            return retire(node, command)
        case _:
            assert_never(command)


def retire(node: Node, command: RetireNode) -> list[NodeEvents]:
    """Retire a lost node. Refused while VMs that are not lost are on it: they have to be deleted or forgotten first."""
    if same_request(node.operations.get(command.operation), command.VERB, command.fingerprint):
        return []
    if not node.lost:
        raise Rejected(
            "node_not_lost",
            f"node {node.id} is not lost; stop its daemon, and wait until the node is shown as lost",
        )
    needed = sorted(vm for vm in command.needed if vm in node.reservations)
    if needed:
        more = f" and {len(needed) - MOST_NAMED} more" if len(needed) > MOST_NAMED else ""
        raise Rejected(
            "node_in_use",
            f"{len(needed)} VMs that are not lost are on node {node.id}: {', '.join(needed[:MOST_NAMED])}{more}; "
            "delete or forget them first (forget: they are lost with their disks)",
        )
    return [NodeRetired(at=command.at, operation=command.operation, fingerprint=command.fingerprint)]


def decide_retired(node: Node, command: NodeCommands) -> list[NodeEvents]:
    """The events that follow from a command on a retired node. It gets no reservations any more. Raises Rejected."""
    match command:
        case CordonNode() | UncordonNode() | SetSeedUrl() | RetireNode():
            if same_request(node.operations.get(command.operation), command.VERB, command.fingerprint):
                return []
            raise node_retired(node)
        case Reserve():
            raise node_retired(node)
        case Release():
            return [CapacityReleased(at=command.at, vm=command.vm)] if command.vm in node.reservations else []
        case RegisterNode() | ReturnLease() | ChangeReservation() | LoseNode() | RecoverNode():
            return []
        case _:
            assert_never(command)


def unsigned(node: str) -> Rejected:
    return Rejected(
        "node_unsigned",
        f"node {node} has to sign, and this request has no signature: give its daemon the node's key "
        "(NEBULA_NODE_KEY_FILE, or join again)",
        Category.FORBIDDEN,
    )


def node_retired(node: Node) -> Rejected:
    return Rejected(
        "node_retired", f"node {node.id} was retired at {node.retired_at:%Y-%m-%dT%H:%M:%SZ}", Category.GONE
    )


def retired_node_registers(node: Node) -> Rejected:
    return Rejected(
        "node_retired",
        f"node {node.id} was retired at {node.retired_at:%Y-%m-%dT%H:%M:%SZ}: it counts as permanently lost, and gets "
        "no VMs. If this host is to use the name again, set NEBULA_TAKE_OVER=true once; otherwise give it another name "
        "(NEBULA_NODE)",
    )


def lease(node: Node | None, command: RegisterNode) -> list[NodeEvents]:
    """Give the lease to the daemon that requests it. Nothing, if it has the lease. Raises Rejected.

    A daemon's identity stands for its data folder, which has the disks of the node's VMs. A new process on the same
    folder gets the lease immediately. A daemon on another folder gets it only if the holder has returned it or was
    silent for long enough, and there are no VMs on the node, as it would not have their disks. The operator can
    overrule the latter condition (`take_over`).
    """
    daemon = command.daemon
    if daemon is None or (node is not None and node.holder is not None and node.holder.boot == daemon.boot):
        return []
    if node is not None:
        same_folder = node.identity == daemon.identity
        if node.holder is not None and not (same_folder and command.heir) and not is_silent(node, command):
            raise lease_held(node, node.holder)
        if node.identity is not None and not same_folder and node.reservations and not command.take_over:
            raise disks_missing(node)
    number = (node.lease if node is not None else 0) + 1
    return [NodeLeased(at=command.at, lease=number, signed=command.signed, **daemon.model_dump())]


def is_silent(node: Node, command: RegisterNode) -> bool:
    silence = command.silence
    return silence is not None and silence.lease == node.lease and silence.seconds >= command.patience


def lease_held(node: Node, holder: Holder) -> Rejected:
    return Rejected(
        "node_taken",
        f"another daemon works for node {node.id}: process {holder.pid} on host {holder.host}, since "
        f"{holder.since:%Y-%m-%dT%H:%M:%SZ}. Give this daemon's node another name (NEBULA_NODE, or --prefix), or end "
        "the other daemon: then this one takes over, if no VM is on the node",
    )


def disks_missing(node: Node) -> Rejected:
    was = f", process {node.holder.pid} on host {node.holder.host}" if node.holder is not None else ""
    return Rejected(
        "node_elsewhere",
        f"the {len(node.reservations)} VMs of node {node.id} are with another daemon{was}: this daemon has another "
        "data folder, without their disks. Is the folder mounted (NEBULA_HOME, NEBULA_NODE_DATA)? Start the other "
        "daemon again, or give this one's node another name; or set NEBULA_TAKE_OVER=true if the other daemon will "
        "never come back",
    )
