"""What follows from a command on a node."""

from typing import assert_never

from domain.base import Category, Rejected
from domain.known import same_request
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

#: VMs that a refusal names.
MOST_NAMED = 3


def decide(node: Node | None, command: NodeCommands) -> list[NodeEvents]:
    """What follows from a command on a node."""
    if isinstance(command, RegisterNode):
        if command.info.node != command.node:
            detail = f"the info is about node {command.info.node}, not {command.node}"
            raise Rejected("invalid_request", detail, Category.INVALID, field="info.node")
        info = stored(command.info)
        if node is not None:  # where guests find their data is the operator's to say, once there are guests
            info = info.with_seed_url(node.info.seed_url)
        if node is not None and node.retired_at is not None and not command.take_over:
            raise come_back(node)
        leased = taken(node, command)
        if node is not None and node.info == info and node.retired_at is None:
            return leased
        return [NodeRegistered(at=command.at, info=info), *leased]
    if node is None:
        raise Rejected("node_not_found", f"there is no node {command.node}", Category.NOT_FOUND, field="node")
    if node.retired_at is not None:
        return of_retired(node, command)
    match command:
        case ReturnLease():
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
            if command.vm in node.reservations:
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
            made = NodeCordoned if isinstance(command, CordonNode) else NodeUncordoned
            return [made(at=command.at, operation=command.operation, fingerprint=command.fingerprint)]
        case RetireNode():
            return retire(node, command)
        case _:
            assert_never(command)


def retire(node: Node, command: RetireNode) -> list[NodeEvents]:
    """It is not expected to come back. Its VMs are: whoever needs them has to say first that they are gone."""
    if same_request(node.operations.get(command.operation), command.VERB, command.fingerprint):
        return []
    if not node.lost:
        raise Rejected(
            "node_not_lost",
            f"node {node.id} is not lost: stop its daemon, and wait until it was silent for long enough",
        )
    needed = sorted(vm for vm in command.needed if vm in node.reservations)
    if needed:
        more = f" and {len(needed) - MOST_NAMED} more" if len(needed) > MOST_NAMED else ""
        raise Rejected(
            "node_in_use",
            f"{len(needed)} VMs that are not lost are on node {node.id}: {', '.join(needed[:MOST_NAMED])}{more}; "
            "delete or forget them first (forget says that they are gone with their disks)",
        )
    return [NodeRetired(at=command.at, operation=command.operation, fingerprint=command.fingerprint)]


def of_retired(node: Node, command: NodeCommands) -> list[NodeEvents]:
    """What is asked of a retired node. Its books are closed: VMs only leave them."""
    match command:
        case CordonNode() | UncordonNode() | SetSeedUrl() | RetireNode():
            if same_request(node.operations.get(command.operation), command.VERB, command.fingerprint):
                return []
            raise gone(node)
        case Reserve():
            raise gone(node)
        case Release():
            return [CapacityReleased(at=command.at, vm=command.vm)] if command.vm in node.reservations else []
        case _:
            return []


def gone(node: Node) -> Rejected:
    return Rejected(
        "node_retired", f"node {node.id} was retired at {node.retired_at:%Y-%m-%dT%H:%M:%SZ}", Category.GONE
    )


def come_back(node: Node) -> Rejected:
    return Rejected(
        "node_retired",
        f"node {node.id} was retired at {node.retired_at:%Y-%m-%dT%H:%M:%SZ}: it is taken for gone, and nothing is "
        "placed on it. Set NEBULA_TAKE_OVER=true once if this host is to work under that name again, or give it "
        "another one (NEBULA_NODE)",
    )


def taken(node: Node | None, command: RegisterNode) -> list[NodeEvents]:
    """The lease changes hands, if it does. Raises Rejected where it may not.

    A daemon is known by the folder it works on (its identity): the disks of the node's VMs are there. The next process
    on the same folder gets the lease at once. One on another folder gets it when the holder has given it back or was
    not heard for some time, and no VM is on the node: it would find none of them. The operator can overrule the latter.
    """
    daemon = command.daemon
    if daemon is None or (node is not None and node.holder is not None and node.holder.boot == daemon.boot):
        return []
    if node is not None:
        same_folder = node.identity == daemon.identity
        if node.holder is not None and not (same_folder and command.heir) and not is_silent(node, command):
            raise in_use(node, node.holder)
        if node.identity is not None and not same_folder and node.reservations and not command.take_over:
            raise elsewhere(node)
    lease = (node.lease if node is not None else 0) + 1
    return [NodeLeased(at=command.at, lease=lease, **daemon.model_dump())]


def is_silent(node: Node, command: RegisterNode) -> bool:
    silence = command.silence
    return silence is not None and silence.lease == node.lease and silence.seconds >= command.patience


def in_use(node: Node, holder: Holder) -> Rejected:
    return Rejected(
        "node_taken",
        f"another daemon works for node {node.id}: process {holder.pid} on host {holder.host}, since "
        f"{holder.since:%Y-%m-%dT%H:%M:%SZ}. Give this one another name (NEBULA_NODE, or --prefix), or end that one: "
        "then this one takes over, if no VM is on the node",
    )


def elsewhere(node: Node) -> Rejected:
    was = f", process {node.holder.pid} on host {node.holder.host}" if node.holder is not None else ""
    return Rejected(
        "node_elsewhere",
        f"the {len(node.reservations)} VMs of node {node.id} are with another daemon{was}: this one works on another "
        "folder, without their disks. Is the folder mounted (NEBULA_HOME, NEBULA_NODE_DATA)? Start that daemon again, "
        "or give this one another name; or set NEBULA_TAKE_OVER=true if that one will never come back",
    )
