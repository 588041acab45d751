"""The choice of a node for a VM: that with the most free memory, of all that have room."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from operator import attrgetter

from domain.base import Resources
from domain.node import Node
from domain.placement import Passed, Placement, Policy, Wish, free, obstacle_of, reason
from domain.vm import Considered

#: If there are at least FEW other nodes, EXAMPLES of them are named for each kind of reason; the rest is counted.
FEW, EXAMPLES = 16, 3
#: Maximum number of wishes for which the order of the nodes is kept.
MOST_WISHES = 32

Rank = tuple[int, str]
"""The place of a node with room, by its free memory times -1 and its id: the most free memory comes first, and of equal
ones the lowest id.
"""


def place(
    size: Resources,
    region: str | None,
    nodes: Iterable[Node],
    policy: Policy | None = None,
    architecture: str | None = None,
    features: tuple[str, ...] = (),
) -> Placement:
    """The choice of one of these nodes for one VM.

    `architecture`: that of the VM's image. `features`: those that the node has to know.
    """
    candidates = Candidates(policy or Policy())
    candidates.update(nodes)
    return candidates.place(Wish(size, region, architecture, features))


def rank(passed: Passed) -> Rank:
    return -passed.room.memory_mib, passed.node.id


class Candidates:
    """The nodes that placement knows, in the order of their free memory for each wish that came lately.

    To look at all nodes for each VM takes milliseconds where there are a thousand. A VM changes one node, so each
    order is kept, and only that node is put in another place.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._known: dict[str, Node] = {}
        self._passed: dict[str, Passed] = {}
        self._orders: dict[Wish, Order] = {}

    def update(self, nodes: Iterable[Node]) -> None:
        """Take in all nodes as they are now."""
        found = {node.id: node for node in nodes}
        for id_ in self._known.keys() - found.keys():
            self._replace(id_, None)
            del self._known[id_]
        for node in found.values():
            if self._known.get(node.id) is not node:
                self.change(node)

    def change(self, node: Node) -> None:
        """Take in one node."""
        self._known[node.id] = node
        self._replace(node.id, Passed(node, free(node, self.policy)) if node.retired_at is None else None)

    def node(self, id_: str) -> Node:
        """A node as it was taken in last. Raises KeyError."""
        return self._known[id_]

    def place(self, wish: Wish) -> Placement:
        """Choose, of all nodes that have room, the one with the most free memory; of equal ones that with the lowest
        id.
        """
        order = self._orders.pop(wish, None)
        if order is None:
            order = Order(wish, self._passed.values())
            if len(self._orders) >= MOST_WISHES:
                del self._orders[next(iter(self._orders))]
        self._orders[wish] = order  # the ones that came lately last
        return order.placement(self._passed)

    def _replace(self, id_: str, new: Passed | None) -> None:
        old = self._passed.pop(id_, None)
        if new is not None:
            self._passed[id_] = new
        for order in self._orders.values():
            if old is not None:
                order.remove(old)
            if new is not None:
                order.add(new)


class Order:
    """The nodes for one wish: those with room by free memory and id, the others by their obstacle and id."""

    def __init__(self, wish: Wish, nodes: Iterable[Passed]) -> None:
        self._wish = wish
        self._fitting: list[Rank] = []
        self._obstacles: dict[str, list[str]] = {}
        for each in nodes:
            obstacle = self._obstacle(each)
            if obstacle is None:
                self._fitting.append(rank(each))
            else:
                self._obstacles.setdefault(obstacle, []).append(each.node.id)
        self._fitting.sort()
        for ids in self._obstacles.values():
            ids.sort()

    def add(self, passed: Passed) -> None:
        obstacle = self._obstacle(passed)
        if obstacle is None:
            insort(self._fitting, rank(passed))
        else:
            insort(self._obstacles.setdefault(obstacle, []), passed.node.id)

    def remove(self, passed: Passed) -> None:
        """Remove a node that was added with this room."""
        obstacle = self._obstacle(passed)
        if obstacle is None:
            del self._fitting[bisect_left(self._fitting, rank(passed))]
        else:
            ids = self._obstacles[obstacle]
            del ids[bisect_left(ids, passed.node.id)]

    def placement(self, nodes: Mapping[str, Passed]) -> Placement:
        """The choice, and why not another node. If there are many: a few for each kind of reason.

        The last of these has in `more` the number of those that were left out.
        """
        best = nodes[self._fitting[0][1]] if self._fitting else None
        considered = [Considered(node=best.node.id)] if best is not None else []
        count = len(nodes) - len(considered)
        for kind, number, ids in self._passed_over():
            named = list(islice(ids, EXAMPLES if count >= FEW else number))
            for id_ in named:
                more = number - len(named) if id_ == named[-1] else 0
                why = reason(kind, self._wish, nodes[id_], best)
                considered.append(Considered(node=id_, reason=why, more=more))
        return Placement(best.node.id if best is not None else None, tuple(sorted(considered, key=attrgetter("node"))))

    def _passed_over(self) -> Iterator[tuple[str, int, Iterator[str]]]:
        """Each kind of reason with the number of its nodes, and these, those to be named first in front."""
        if len(self._fitting) > 1:
            yield "memory", len(self._fitting) - 1, (id_ for _, id_ in islice(self._fitting, 1, None))
        for kind, ids in self._obstacles.items():
            yield kind, len(ids), iter(ids)

    def _obstacle(self, passed: Passed) -> str | None:
        return obstacle_of(self._wish, passed.node, passed.room)
