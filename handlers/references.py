"""Who refers to what, in the order of the log: what a deletion, and a create that comes with it, are judged by.

The world shows each event here at the moment when everything before it, and nothing behind it, is known. So all
handlers come to the same verdicts, whenever they look:

* a deletion that begins at a position is judged by who refers to the aggregate there;
* a VM that was requested at a position is void when its project, its image or a tag was deleted, or was closing, there.
  Nobody was told that it was accepted; placement drops it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from domain import image, project, tag
from domain.base import Event, Rejected
from domain.image import Image
from domain.named import Named
from domain.references import NONE, Reference, may_differ, references
from domain.vm import Vm, VmRequested
from eventstore.log.envelope import Recorded, Ref
from runtime import subjects


def refers_to(reference: Reference) -> Ref:
    """The aggregate that a reference means."""
    project_id = reference.id if reference.kind == "project" else subjects.SYSTEM
    return Ref(project_id, reference.kind, reference.id)


@dataclass(frozen=True)
class Users:
    """The ids of those that refer to an aggregate."""

    vms: frozenset[str] = frozenset()
    projects: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()


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
        of: dict[str, list[str]] = {"vm": [], "project": [], "image": []}
        for ref in self._users.get(reference, ()):
            of[ref.kind].append(ref.id)
        return Users(*(frozenset(of[kind]) for kind in ("vm", "project", "image")))

    def moved(self, recorded: Recorded, before: object, after: object) -> None:
        """Take in an event that made one state of another; `lookup` tells of `after` already."""
        ref = recorded.ref
        if ref.kind == "vm" and not may_differ(before, after) and ref.id not in self.void:
            return
        had = NONE if ref.id in self.void else references(before)
        self._judge(recorded.event, ref, after)
        has = NONE if ref.id in self.void else references(after)
        for gone in had - has:
            users = self._users[gone]
            users.discard(ref)
            if not users:
                del self._users[gone]
        for new in has - had:
            self._users.setdefault(new, set()).add(ref)
        if isinstance(after, Named | Image):
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
            self.usable(vm.project, vm.image, vm.tags, vm.spec.disk_gib)
        except Rejected as refusal:
            return refusal
        return None

    def usable(self, project_id: str, image_id: str, tags: tuple[str, ...], disk_gib: object) -> Image:
        """The image, where a VM like this may be made now. Raises Rejected."""
        self.usable_project(project_id)
        found = self.usable_image(image_id, project_id)
        self.usable_tags(tags)
        image.refuse_small_disk(found, disk_gib)
        return found

    def usable_project(self, id_: str) -> Named:
        found = self.lookup(refers_to(Reference("project", id_)))
        return project.usable(found if isinstance(found, Named) else None, id_)

    def usable_image(self, id_: str, project_id: str) -> Image:
        found = self.lookup(refers_to(Reference("image", id_)))
        return image.usable_image(found if isinstance(found, Image) else None, id_, project_id)

    def usable_tags(self, names: tuple[str, ...]) -> None:
        for name in names:
            found = self.lookup(refers_to(Reference("tag", name)))
            tag.usable(found if isinstance(found, Named) else None, name)
