"""Who refers to what, in the order of the log: what a deletion, and a create that comes with it, are judged by.

The world shows each event here at the moment when everything before it, and nothing behind it, is known. So all
handlers come to the same verdicts, whenever they look:

* a deletion that begins at a position is judged by who refers to the aggregate there;
* a VM that was requested at a position is void when its project, its image or a tag was deleted, or was closing, there.
  Nobody was told that it was accepted; placement drops it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from domain.base import Event, Rejected
from domain.image import Image, refuse_small_disk
from domain.kind import SYSTEM
from domain.kinds import KINDS, references
from domain.named import Closable
from domain.references import NONE, Reference, Users
from domain.vm import Vm, VmRequested
from eventstore.log.envelope import Recorded, Ref


@lru_cache(maxsize=1024)
def refers_to(reference: Reference) -> Ref:
    """The aggregate that a reference means."""
    return Ref(KINDS[reference.kind].project_of(SYSTEM, reference.id), reference.kind, reference.id)


def in_order(named: Iterable[Reference]) -> list[Reference]:
    """The project first: what else is wrong is its members' business."""
    return sorted(named, key=lambda reference: (reference.kind != "project", reference))


@dataclass(frozen=True)
class Deletion:
    """A deletion that has begun and is not decided: the event that says so, and who used the aggregate there."""

    begun: Recorded
    users: Users


Lookup = Callable[[Ref], object]


@dataclass
class References:
    """Kept by the world, event by event. `lookup` tells the state of an aggregate as the log tells it so far."""

    lookup: Lookup
    deletions: dict[Ref, Deletion] = field(default_factory=dict)
    void: dict[str, Rejected] = field(default_factory=dict)
    """Why VMs are void, by their id."""
    _users: dict[Reference, set[Ref]] = field(default_factory=dict)

    def users(self, reference: Reference) -> Users:
        """Who refers to an aggregate."""
        ids: dict[str, list[str]] = {}
        for ref in self._users.get(reference, ()):
            ids.setdefault(ref.kind, []).append(ref.id)
        return Users(ids={kind: tuple(sorted(of)) for kind, of in ids.items()})

    def moved(self, recorded: Recorded, before: object, after: object) -> None:
        """Take in an event that made one state of another; `lookup` tells of `after` already."""
        ref = recorded.ref
        both = before is not None and after is not None
        if both and not KINDS[ref.kind].may_differ(before, after) and ref.id not in self.void:
            return
        had = NONE if ref.id in self.void else references(ref.kind, before)
        self._judge(recorded.event, ref, after)
        has = NONE if ref.id in self.void else references(ref.kind, after)
        for gone in had - has:
            users = self._users[gone]
            users.discard(ref)
            if not users:
                del self._users[gone]
        for new in has - had:
            self._users.setdefault(new, set()).add(ref)
        if KINDS[ref.kind].closes and isinstance(after, Closable):
            if after.closing is None:
                self.deletions.pop(ref, None)
            elif ref not in self.deletions:
                self.deletions[ref] = Deletion(recorded, self.users(Reference(ref.kind, ref.id)))

    def _judge(self, event: Event, ref: Ref, after: object) -> None:
        """Whether a VM is void. One that has got a node, in a log of an earlier version, is a VM like any other."""
        if not isinstance(after, Vm):
            return
        if isinstance(event, VmRequested):
            why = self._refusal(after)
            if why is not None:
                self.void[ref.id] = why
        elif ref.id in self.void and after.node is not None:
            del self.void[ref.id]

    def _refusal(self, vm: Vm) -> Rejected | None:
        try:
            self.usable(references("vm", vm), vm.project)
            self.fits(vm.image, vm.spec.disk_gib)
        except Rejected as refusal:
            return refusal
        return None

    def usable(self, named: Iterable[Reference], project_id: str) -> None:
        """Nothing, where something new of a project may refer to all of these. Raises Rejected."""
        for reference in in_order(named):
            usable = KINDS[reference.kind].usable
            if usable is not None:
                usable(self.lookup(refers_to(reference)), reference.id, project_id)

    def fits(self, image_id: str, disk_gib: object) -> None:
        """Nothing, where a disk of this size holds an image. Raises Rejected."""
        found = self.lookup(refers_to(Reference("image", image_id)))
        if isinstance(found, Image):
            refuse_small_disk(found, disk_gib)
