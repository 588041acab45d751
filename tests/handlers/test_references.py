"""Who refers to what, in the order of the log: an index that a look at everything agrees with, and verdicts."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings, strategies as st

from domain.base import Event
from domain.image import ImageDeleted, ImageDeletionBegun, ImageRegistered, ImageVerified
from domain.kinds import references
from domain.project import ProjectCreated, ProjectDeleted, ProjectDeletionBegun, ProjectDeletionGivenUp, ProjectTagged
from domain.references import Reference
from domain.tag import TagCreated, TagDeleted, TagDeletionBegun, TagDeletionGivenUp
from domain.vm import Vm, VmChanged, VmDeleted, VmFailed, VmForgotten, VmRebuildRequested, VmRequested, VmScheduled
from eventstore.log.envelope import Context, Recorded, Ref, seal
from eventstore.log.store import Tip
from handlers.managers.placement import drop_of
from handlers.world.world import World
from tests.domain.story import uid

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
DONE = {"at": AT, "operation": "o", "fingerprint": "f"}
ASKED = {**DONE, "deadline": AT}
SPEC = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}
BEGUN = {"at": AT, "requested": "o", "fingerprint": "f"}
GIVEN_UP = {"at": AT, "code": "in_use", "detail": "in use"}

PROJECT, TAG, IMAGE = Ref("p", "project", "p"), Ref("system", "tag", "web"), Ref("system", "image", "base")
MADE: Sequence[tuple[Ref, Event]] = (
    (PROJECT, ProjectCreated(**DONE, project="p", name="P")),
    (TAG, TagCreated(**DONE, tag="web", name="Web")),
    (IMAGE, ImageRegistered(**ASKED, image="base", name="Base", source="/base")),
    (IMAGE, ImageVerified(at=AT, format="raw", size_bytes=1, virtual_size_bytes=1)),
)


class Log:
    """Events one after the other, shown to a world as they come."""

    def __init__(self) -> None:
        self.world = World()
        self._tips: dict[Ref, Tip] = {}
        for ref, event in MADE:
            self.add(ref, event)

    def add(self, ref: Ref, *events: Event) -> None:
        for event in events:
            tip = self._tips.get(ref, Tip(ref))
            headers, body = seal(ref, tip.version + 1, tip.digest, event, Context(actor="a"))
            self.world.position += 1
            recorded = Recorded(self.world.position, ref.subject, headers, body, AT)
            self._tips[ref] = tip.after(recorded)
            assert self.world.take(recorded) is None

    def request(self, number: int, image: str = "base", tags: tuple[str, ...] = ()) -> Ref:
        ref = Ref("p", "vm", uid(number))
        self.add(ref, VmRequested(**ASKED, vm=ref.id, project="p", name="web", image=image, spec=SPEC, tags=tags))
        return ref

    def vm(self, ref: Ref) -> Vm:
        state = self.world.get(ref).state
        assert isinstance(state, Vm)
        return state

    def users(self, ref: Ref) -> frozenset[str]:
        return frozenset(self.world.references.users(Reference(ref.kind, ref.id)).of("vm"))

    def void(self, ref: Ref) -> str | None:
        refusal = self.world.references.void.get(ref.id)
        return refusal.code if refusal else None


def test_who_uses_it_where_its_deletion_began_decides() -> None:
    log = Log()
    before = log.request(1, tags=("web",))
    log.add(TAG, TagDeletionBegun(**BEGUN))
    log.add(before, VmDeleted(at=AT))
    behind = log.request(2, tags=("web",))
    assert log.world.references.deletions[TAG].users.of("vm") == (before.id,)
    assert log.users(TAG) == set(), "one is deleted, and one is void"
    assert (log.void(before), log.void(behind)) == (None, "tag_being_deleted")
    log.add(TAG, TagDeletionGivenUp(**GIVEN_UP))
    assert TAG not in log.world.references.deletions
    assert log.void(behind) == "tag_being_deleted", "its place in the log does not change"
    assert log.void(log.request(3, tags=("web",))) is None


def test_what_is_void_stays_void_and_is_dropped() -> None:
    log = Log()
    log.add(PROJECT, ProjectDeletionBegun(**BEGUN))
    closing = log.request(1)
    log.add(PROJECT, ProjectDeleted(**DONE))
    deleted = log.request(2)
    log.add(PROJECT, ProjectCreated(**DONE, project="p", name="Again"))
    valid = log.request(3)
    assert [log.void(ref) for ref in (closing, deleted, valid)] == ["project_being_deleted", "project_not_found", None]
    assert log.users(PROJECT) == {valid.id}, "nothing is inherited"
    for ref in (closing, deleted):
        drop = drop_of(log.vm(ref), log.world)
        assert drop is not None
        assert drop.code == log.void(ref)
        log.add(ref, VmFailed(at=AT, code=drop.code, detail=drop.detail))
        assert log.users(PROJECT) == {valid.id}
        log.add(ref, VmDeleted(at=AT))
        assert log.void(ref) is not None, "whoever asks again is told so"
    assert drop_of(log.vm(valid), log.world) is None


def test_a_vm_that_has_a_node_is_a_vm_like_any_other() -> None:
    """An earlier version had no verdicts, and placed what raced with a deletion."""
    log = Log()
    log.add(PROJECT, ProjectDeleted(**DONE))
    vm = log.request(1)
    log.add(vm, VmScheduled(at=AT, node="n1", epoch=1, deadline=AT, considered=()))
    assert log.void(vm) is None
    assert log.users(PROJECT) == {vm.id}
    log.add(PROJECT, ProjectCreated(**DONE, project="p", name="Again"), ProjectDeletionBegun(**BEGUN))
    assert log.world.references.deletions[PROJECT].users.of("vm") == (vm.id,)


def test_an_image_that_is_not_available_where_a_vm_is_requested() -> None:
    log = Log()
    log.add(IMAGE, ImageDeletionBegun(**BEGUN), ImageDeleted(**DONE))
    assert log.void(log.request(1)) == "image_not_found"
    log.add(IMAGE, ImageRegistered(**ASKED, image="base", name="Base", source="/base", project="other"))
    log.add(IMAGE, ImageVerified(at=AT, format="raw", size_bytes=1, virtual_size_bytes=9 * 1024**3))
    assert log.void(log.request(2)) == "image_not_found", "it belongs to another project now"
    log.add(IMAGE, ImageDeleted(**DONE), ImageRegistered(**ASKED, image="base", name="Base", source="/base"))
    assert log.void(log.request(3)) == "image_not_available"
    log.add(IMAGE, ImageVerified(at=AT, format="raw", size_bytes=1, virtual_size_bytes=9 * 1024**3))
    assert log.void(log.request(4)) == "disk_too_small"


VMS = [Ref("p", "vm", id_) for id_ in (uid(1), uid(2), uid(3))]
TAGS = st.sampled_from([(), ("web",), ("web", "db")])


@st.composite
def steps(draw: st.DrawFn) -> tuple[Ref, Event]:
    vm, owner = draw(st.sampled_from(VMS)), draw(st.sampled_from([None, "p"]))
    image, tags = draw(st.sampled_from(["base", "other"])), draw(TAGS)
    made: dict[str, Any] = {"vm": vm.id, "project": "p", "name": "web", "image": image, "spec": SPEC, "tags": tags}
    choices: list[tuple[Ref, Event]] = [
        (vm, VmRequested(**ASKED, **made)),
        (vm, VmChanged(**ASKED, tags=tags)),
        (vm, VmChanged(**ASKED, name="other")),
        (vm, VmRebuildRequested(**ASKED, image=image, disk=2)),
        (vm, VmFailed(at=AT, code="c", detail="d")),
        (vm, VmScheduled(at=AT, node="n1", epoch=1, deadline=AT, considered=())),
        (vm, VmDeleted(at=AT)),
        (PROJECT, ProjectTagged(**DONE, tags=tags)),
        (PROJECT, ProjectDeletionBegun(**BEGUN)),
        (PROJECT, ProjectDeletionGivenUp(**GIVEN_UP)),
        (PROJECT, ProjectDeleted(**DONE)),
        (PROJECT, ProjectCreated(**DONE, project="p", name="P", tags=tags)),
        (TAG, TagDeletionBegun(**BEGUN)),
        (TAG, TagDeleted(**DONE)),
        (TAG, TagCreated(**DONE, tag="web", name="Web")),
        (
            IMAGE,
            ImageRegistered(**ASKED, image="base", name="B", source="/b", project=owner),
        ),
        (IMAGE, ImageVerified(at=AT, format="raw", size_bytes=1, virtual_size_bytes=1)),
        (IMAGE, ImageDeleted(**DONE)),
    ]
    return draw(st.sampled_from(choices))


@settings(max_examples=200, deadline=None)
@given(st.lists(steps(), max_size=30))
def test_the_index_says_what_a_look_at_everything_says(history: list[tuple[Ref, Event]]) -> None:
    log = Log()
    for ref, event in history:
        log.add(ref, event)
    world = log.world
    states = {ref: world.get(ref).state for ref in (*VMS, PROJECT, TAG, IMAGE)}
    seen = {ref: references(ref.kind, state) for ref, state in states.items() if ref.id not in world.references.void}
    for reference in [
        Reference("project", "p"),
        Reference("tag", "web"),
        Reference("tag", "db"),
        Reference("image", "base"),
    ]:
        found = world.references.users(reference)
        by_kind = {
            kind: {ref.id for ref in seen if ref.kind == kind and reference in seen[ref]}
            for kind in ("vm", "project", "image")
        }
        assert {kind: set(found.of(kind)) for kind in by_kind} == by_kind
    for ref in (PROJECT, TAG, IMAGE):
        assert (ref in world.references.deletions) == (getattr(states[ref], "closing", None) is not None)


def test_a_forgotten_vm_is_one_of_its_own_project_alone() -> None:
    log = Log()
    vm = log.request(1)
    scheduled = VmScheduled(at=AT, node="n1", epoch=1, deadline=AT, considered=())
    log.add(vm, scheduled, VmForgotten(**ASKED, reason="r", node="n1", epoch=2), VmDeleted(at=AT))
    assert vm.id in log.world.forgotten
    assert (held := log.world.held(vm)) is not None and held.state is not None
    assert log.world.held(Ref("elsewhere", "vm", vm.id)) is None
