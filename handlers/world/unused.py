"""The promises of nodes to VMs that are not on them: what a placement has begun, and what a deleted VM has left."""

from collections.abc import Iterator


class UnusedPromises:
    """Pairs of a VM and a node: the node has promised it resources, and the VM is not on that node, or is deleted."""

    def __init__(self) -> None:
        self._nodes: dict[str, list[str]] = {}

    def set(self, vm: str, node: str, unused: bool) -> None:
        """A promise is unused, or it is not: it is used, or there is none."""
        nodes = self._nodes.get(vm, [])
        if unused == (node in nodes):
            return
        others = [each for each in nodes if each != node]
        if unused:
            others.append(node)
        if others:
            self._nodes[vm] = sorted(others)
        else:
            del self._nodes[vm]

    def nodes_of(self, vm: str) -> list[str]:
        """The nodes with an unused promise to a VM, sorted."""
        return self._nodes.get(vm, [])

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """All pairs of VM and node."""
        return iter([(vm, node) for vm, nodes in self._nodes.items() for node in nodes])

    def restore(self, pairs: list[tuple[str, str]]) -> None:
        """Fill an empty one with a copy."""
        for vm, node in pairs:
            self.set(vm, node, True)
