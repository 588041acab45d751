"""The references between aggregates, in the order of the log. They decide deletions, and creates at the same time.

The world passes each event to this file when it knows exactly the events before it. So all handlers processes come to
the same results at any time:

* a deletion that begins at a position is decided by the references to the aggregate at that position;
* a VM that was requested at a position is void if its project, image, flavor or a tag was deleted or closing there.
  Its caller was never told that it was accepted; placement drops it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

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


@lru_cache(maxsize=1024)
def project_first(named: frozenset[Reference]) -> tuple[Reference, ...]:
    """The references sorted, the project first: only its members may learn what else is wrong."""
    return tuple(sorted(named, key=lambda reference: (reference.kind != "project", reference)))


@dataclass(frozen=True)
class Deletion:
    """A deletion that is not decided: the event that began it, and who used the aggregate at that position."""

    begun: Recorded
    users: Users


Lookup = Callable[[Ref], object]


@dataclass
class References:
    """All references, updated by the world with each event. `lookup`: returns the present state of an aggregate."""

    lookup: Lookup
    deletions: dict[Ref, Deletion] = field(default_factory=dict)
    void: dict[str, Rejected] = field(default_factory=dict)
    """The reasons why VMs are void, by their ids."""
    _users: dict[Reference, set[Ref]] = field(default_factory=dict)

    def users(self, reference: Reference) -> Users:
        """The resources that refer to an aggregate."""
        ids: dict[str, list[str]] = {}
        for ref in self._users.get(reference, ()):
            ids.setdefault(ref.kind, []).append(ref.id)
        return Users(ids={kind: tuple(sorted(of)) for kind, of in ids.items()})

    def in_use(self, reference: Reference) -> bool:
        """Whether a resource refers to an aggregate."""
        return reference in self._users

    def update(self, ref: Ref, recorded: Recorded, before: object, after: object) -> None:
        """Process an event, given the states before and after it. `lookup` must return `after` already."""
        both = before is not None and after is not None
        if both and not KINDS[ref.kind].may_differ(before, after) and ref.id not in self.void:
            return
        had = NONE if ref.id in self.void else references(ref.kind, before)
        self._check_void(recorded.event, ref, after)
        has = NONE if ref.id in self.void else references(ref.kind, after)
        for old in had - has:
            users = self._users[old]
            users.discard(ref)
            if not users:
                del self._users[old]
        for new in has - had:
            self._users.setdefault(new, set()).add(ref)
        if KINDS[ref.kind].closes and after is not None:
            if cast(Closable, after).closing is None:
                self.deletions.pop(ref, None)
            elif ref not in self.deletions:
                self.deletions[ref] = Deletion(recorded, self.users(Reference(ref.kind, ref.id)))

    def copied(self) -> list[tuple[Reference, list[Ref]]]:
        """For each aggregate that is in use its users, in no particular order."""
        return [(reference, list(refs)) for reference, refs in self._users.items()]

    def restore(self, reference: Reference, refs: Iterable[Ref]) -> None:
        """Set the users of an aggregate."""
        self._users[reference] = set(refs)

    def _check_void(self, event: Event, ref: Ref, after: object) -> None:
        """Decide whether a VM is void. One that has got a node, in a log of an earlier version, is not void."""
        if not isinstance(after, Vm):
            return
        if isinstance(event, VmRequested):
            reason = self._refusal(after)
            if reason is not None:
                self.void[ref.id] = reason
        elif ref.id in self.void and after.node is not None:
            del self.void[ref.id]

    def _refusal(self, vm: Vm) -> Rejected | None:
        try:
            self.usable(references("vm", vm), vm.project)
            self.check_disk(vm.image, vm.spec.disk_gib)
        except Rejected as refusal:
            return refusal
        return None

    def usable(self, named: Iterable[Reference], project_id: str) -> None:
        """Raises Rejected unless something new in the project may refer to all of these."""
        for reference in project_first(frozenset(named)):
            usable = KINDS[reference.kind].usable
            if usable is not None:
                usable(self.lookup(refers_to(reference)), reference.id, project_id)

    def check_disk(self, image_id: str, disk_gib: object) -> None:
        """Raises Rejected if the image does not fit on a disk of `disk_gib` GiB."""
        found = self.lookup(refers_to(Reference("image", image_id)))
        if isinstance(found, Image):
            refuse_small_disk(found, disk_gib)
