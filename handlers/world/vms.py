"""What the world derives from the states of VMs, so that no manager has to look at all of them."""

from datetime import datetime
from typing import Any

from domain.vm import VISIBLE, WAITING, Phase, Vm
from eventstore.log.envelope import Ref
from eventstore.log.store import Loaded
from handlers.world import deleted
from handlers.world.deleted import DeletedIds
from handlers.world.due import Due
from handlers.world.macs import Macs
from handlers.world.unused import UnusedPromises


def next_time(found: Vm) -> datetime | None:
    """The earliest time at which a VM needs an action: its operation times out, or it is started again."""
    times = [found.pending.deadline if found.pending else None, found.restart_at]
    return min((time for time in times if time is not None), default=None)


Copied = dict[str, Any]
"""The parts of an index, as lists and numbers."""


class VmIndex:
    """Updated with each event of a VM."""

    def __init__(self) -> None:
        self.waiting: dict[str, None] = {}
        """The VMs without a node, in the order of their creation."""
        self.macs = Macs()
        """The MAC addresses of the VMs that exist; a forgotten VM keeps its address until its node has removed it."""
        self.due = Due()
        """The times at which operations of VMs time out, or VMs are started again."""
        self.deleted = DeletedIds()
        self.forgotten: dict[str, Loaded[Vm]] = {}
        """The forgotten VMs that their node has not removed yet."""
        self.visible: dict[str, set[str]] = {}
        """For each node its VMs that become lost with it."""
        self.unused = UnusedPromises()

    def change(self, ref: Ref, before: Vm | None, after: Vm) -> None:
        """A VM that is not deleted has changed."""
        if after.phase in WAITING:
            self.waiting[ref.id] = None
        else:
            self.waiting.pop(ref.id, None)
        self.due.set(ref.id, next_time(after))
        self.macs.change(before, after)
        self._see(ref.id, before, after)

    def remove(self, ref: Ref, before: Vm | None, loaded: Loaded[Vm]) -> None:
        """A VM is deleted, or a forgotten one has changed. `loaded`: the VM after that."""
        self.deleted.add(ref.id)
        self.due.set(ref.id, None)
        self.waiting.pop(ref.id, None)
        self._see(ref.id, before, None)
        after = loaded.state
        if after is not None and after.forgotten is not None and not after.cleared:
            self.forgotten[ref.id] = loaded
            self.macs.change(before, after)
        else:
            self.forgotten.pop(ref.id, None)
            self.macs.change(before, None)

    def is_deleted(self, id_: str) -> bool:
        """Whether nothing of a VM is left, also on its node."""
        return id_ in self.deleted and id_ not in self.forgotten

    def copied(self) -> Copied:
        """A copy of all but `forgotten`, made fast; `in_order` puts it in order."""
        return {
            "waiting": list(self.waiting),
            "due": self.due.copied(),
            "macs": self.macs.copied(),
            "visible": [(node, list(ids)) for node, ids in self.visible.items()],
            "deleted": self.deleted.copied(),
            "unused": list(self.unused),
        }

    def restore(self, copied: Copied) -> None:
        """Fill an empty index with a copy that is in order."""
        self.waiting.update(dict.fromkeys(copied["waiting"]))
        for id_, at in copied["due"]:
            self.due.set(id_, datetime.fromisoformat(at))
        self.macs.restore(*copied["macs"])
        self.visible = {node: set(ids) for node, ids in copied["visible"]}
        self.deleted.restore(copied["deleted"])
        self.unused.restore(copied["unused"])

    def _see(self, id_: str, before: Vm | None, after: Vm | None) -> None:
        old, new = visible_on(before), visible_on(after)
        if old == new:
            return
        if old is not None:
            others = self.visible[old]
            others.discard(id_)
            if not others:
                del self.visible[old]
        if new is not None:
            self.visible.setdefault(new, set()).add(id_)


def in_order(copied: Copied) -> Copied:
    """The same content in a form that does not depend on the order of sets."""
    return {
        "waiting": copied["waiting"],
        "due": sorted((id_, at.isoformat()) for id_, at in copied["due"]),
        "macs": tuple(sorted(each, key=str) for each in copied["macs"]),
        "visible": sorted((node, sorted(ids)) for node, ids in copied["visible"]),
        "deleted": deleted.in_order(copied["deleted"]),
        "unused": sorted(copied["unused"]),
    }


def visible_on(vm: Vm | None) -> str | None:
    """The node that a VM becomes lost with."""
    return vm.node if vm is not None and vm.phase in VISIBLE and vm.phase is not Phase.DELETED else None
