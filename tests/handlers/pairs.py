"""Pairs of commands of which exactly one may win: one that begins to use something, and its deletion."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from domain.base import Event
from domain.image import Image, ImagePhase, ImageRegistered, ImageVerified
from domain.project import ProjectCreated
from domain.tag import TagCreated
from domain.vm import Phase, VmOperationTimedOut, VmRequested
from eventstore.envelope import Context, Ref
from eventstore.store import Change, Tip
from handlers.apply import now
from tests.handlers.platform import WriteSide, raw_disk

CONTEXT = Context(actor="tester")
SPEC = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}


def done() -> dict[str, Any]:
    return {"at": now(), "operation": str(uuid.uuid4()), "fingerprint": "f"}


async def put(side: WriteSide, ref: Ref, *events: Event) -> Ref:
    """Append the first events of an aggregate, as handlers once did."""
    await side.store.append([Change(Tip(ref), events)], CONTEXT)
    return ref


async def project(side: WriteSide, id_: str) -> Ref:
    return await put(side, Ref(id_, "project", id_), ProjectCreated(**done(), project=id_, name=id_))


async def tag(side: WriteSide, id_: str) -> Ref:
    return await put(side, Ref("system", "tag", id_), TagCreated(**done(), tag=id_, name=id_))


async def available(side: WriteSide, id_: str) -> Ref:
    registered = ImageRegistered(**done(), deadline=now(), image=id_, name=id_, source="/none", sha256="0" * 64)
    verified = ImageVerified(at=now(), sha256="0" * 64, format="raw", size_bytes=1, virtual_size_bytes=1)
    return await put(side, Ref("system", "image", id_), registered, verified)


async def failed_vm(side: WriteSide, project_id: str, image_id: str) -> Ref:
    """A VM that never came up: nothing is pending, and it may be rebuilt."""
    id_ = str(uuid.uuid4())
    asked = done()
    made = {"vm": id_, "project": project_id, "name": "web", "image": image_id, "spec": SPEC}
    late = VmOperationTimedOut(at=now(), operation=asked["operation"], verb="create")
    return await put(side, Ref(project_id, "vm", id_), VmRequested(**asked, deadline=now(), **made), late)


States = Mapping[Ref, Any]
Command = tuple[str, str, str, dict[str, Any]]


@dataclass(frozen=True)
class Pair:
    """Two commands (project, kind, verb, args), and whether the log says that the first one won."""

    use: Command
    target: Ref
    used: Callable[[States], bool]

    @property
    def delete(self) -> Command:
        return self.target.project, self.target.kind, "delete", {self.target.kind: self.target.id}

    def deleted(self, states: States) -> bool:
        state = states[self.target]
        return bool(state.phase is ImagePhase.DELETED if isinstance(state, Image) else state.deleted)


def lives(ref: Ref) -> Callable[[States], bool]:
    """Whether there is such a VM, and it is not deleted."""

    def used(states: States) -> bool:
        return ref in states and states[ref].phase is not Phase.DELETED

    return used


def create_args(id_: str, image_id: str = "shared", **more: Any) -> dict[str, Any]:
    return {"vm": id_, "name": "web", "image": image_id, "spec": SPEC, **more}


async def create_and_project(side: WriteSide, n: str) -> Pair:
    target, id_ = await project(side, f"p{n}"), str(uuid.uuid4())
    return Pair((target.id, "vm", "create", create_args(id_)), target, lives(Ref(target.id, "vm", id_)))


async def create_and_tag(side: WriteSide, n: str) -> Pair:
    target, id_ = await tag(side, f"t{n}"), str(uuid.uuid4())
    use = ("shared", "vm", "create", create_args(id_, tags=[target.id]))
    return Pair(use, target, lives(Ref("shared", "vm", id_)))


async def create_and_image(side: WriteSide, n: str) -> Pair:
    target, id_ = await available(side, f"i{n}"), str(uuid.uuid4())
    use = ("shared", "vm", "create", create_args(id_, target.id))
    return Pair(use, target, lives(Ref("shared", "vm", id_)))


async def change_and_tag(side: WriteSide, n: str) -> Pair:
    target, its = await tag(side, f"c{n}"), await failed_vm(side, "shared", "shared")
    use = ("shared", "vm", "change", {"vm": its.id, "tags": [target.id]})
    return Pair(use, target, lambda states: target.id in states[its].tags)


async def rebuild_and_image(side: WriteSide, n: str) -> Pair:
    target, its = await available(side, f"r{n}"), await failed_vm(side, "shared", "shared")
    use = ("shared", "vm", "rebuild", {"vm": its.id, "image": target.id})
    return Pair(use, target, lambda states: bool(states[its].image == target.id))


async def register_and_project(side: WriteSide, n: str) -> Pair:
    target, own = await project(side, f"o{n}"), Ref("system", "image", f"o{n}")
    source = side.home / "own.raw"
    if not source.exists():
        source.write_bytes(raw_disk())
    args = {"image": own.id, "name": "Own", "source": str(source), "project": target.id}
    return Pair(("system", "image", "register", args), target, lambda states: own in states)


async def project_and_tag(side: WriteSide, n: str) -> Pair:
    """A project is made with a tag."""
    target, new = await tag(side, f"n{n}"), Ref(f"n{n}", "project", f"n{n}")
    args = {"project": new.id, "name": "N", "tags": [target.id]}
    return Pair((new.project, "project", "create", args), target, lambda states: new in states)


async def tagged_project_and_tag(side: WriteSide, n: str) -> Pair:
    """A project gets a tag."""
    target, its = await tag(side, f"g{n}"), await project(side, f"g{n}")
    use = (its.project, "project", "change", {"project": its.id, "tags": [target.id]})
    return Pair(use, target, lambda states: target.id in states[its].tags)
