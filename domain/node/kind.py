"""Nodes as a kind: one value of `Kind`."""

from domain.access import NODE_MANAGE, NODE_READ
from domain.base import Event
from domain.kind import Id, Kind, Scope
from domain.node.commands import CordonNode, NodeCommands, NodeOperationCommand, RetireNode, SetSeedUrl, UncordonNode
from domain.node.events import (
    CapacityReleased,
    CapacityReserved,
    NodeCordoned,
    NodeLeased,
    NodeLeaseReturned,
    NodeLost,
    NodeRecovered,
    NodeRegistered,
    NodeRetired,
    NodeUncordoned,
    SeedUrlSet,
)
from domain.node.rules import decide
from domain.node.state import Node, evolve
from domain.verb import ON_ACCEPTANCE, Effect, Verb


def verb(
    command: type[NodeOperationCommand], summary: str, accepted_by: type[Event], effect: Effect = Effect.ACTS
) -> Verb[NodeOperationCommand]:
    return Verb(
        name=command.VERB,
        command=command,
        summary=summary,
        effect=effect,
        permission=NODE_MANAGE,
        accepted_by=(accepted_by,),
        fulfilled_by=ON_ACCEPTANCE,
    )


NODE = Kind[Node, NodeCommands](
    name="node",
    plural="nodes",
    title="node",
    scope=Scope.CLOUD,
    id=Id.SLUG,
    readable_by=NODE_READ,
    state=Node,
    verbs=(
        verb(CordonNode, "Cordon a node", NodeCordoned),
        verb(UncordonNode, "Uncordon a node", NodeUncordoned),
        verb(RetireNode, "Mark a node as permanently lost", NodeRetired),
        verb(SetSeedUrl, "Set the URL where a node's guests get their data", SeedUrlSet, Effect.CHANGES),
    ),
    events=(
        NodeRegistered,
        NodeLeased,
        NodeLeaseReturned,
        CapacityReserved,
        CapacityReleased,
        NodeLost,
        NodeRecovered,
    ),
    decide=decide,
    evolve=evolve,
    deleted=lambda node: node.retired_at is not None,
)
