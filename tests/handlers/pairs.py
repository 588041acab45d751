"""Pairs of commands of which exactly one may win: one that begins to use something, and its deletion."""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from domain import image, vm
from domain.base import Event
from domain.image import ImageRegistered, ImageVerified
from domain.project import ProjectCreated, TagCreated, evolve
from domain.vm import Phase, Vm, VmOperationTimedOut, VmRequested
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


@dataclass(frozen=True)
class Pair:
    """Two commands (project, kind, verb, args), and what the log has to say when the first one won."""

    use: tuple[str, str, str, dict[str, Any]]
    delete: tuple[str, str, str, dict[str, Any]]
    used: Callable[[], Awaitable[bool]]
    deleted: Callable[[], Awaitable[bool]]


async def vm_of(side: WriteSide, ref: Ref) -> Vm | None:
    return (await side.store.load(ref, vm.evolve)).state


async def lives(side: WriteSide, ref: Ref) -> bool:
    found = await vm_of(side, ref)
    return found is not None and found.phase is not Phase.DELETED


async def is_deleted(side: WriteSide, ref: Ref) -> bool:
    if ref.kind == "image":
        found = (await side.store.load(ref, image.evolve)).state
        return found is not None and found.phase is image.ImagePhase.DELETED
    named = (await side.store.load(ref, evolve)).state
    return named is not None and named.deleted


def create_args(id_: str, image_id: str = "shared", **more: Any) -> dict[str, Any]:
    return {"vm": id_, "name": "web", "image": image_id, "spec": SPEC, **more}


def deletion(side: WriteSide, ref: Ref) -> tuple[tuple[str, str, str, dict[str, Any]], Callable[[], Awaitable[bool]]]:
    return (ref.project, ref.kind, "delete", {ref.kind: ref.id}), lambda: is_deleted(side, ref)


async def create_and_project(side: WriteSide, n: str) -> Pair:
    target, id_ = await project(side, f"p{n}"), str(uuid.uuid4())
    use = (target.id, "vm", "create", create_args(id_))
    return Pair(use, *_rest(side, target, lambda: lives(side, Ref(target.id, "vm", id_))))


async def create_and_tag(side: WriteSide, n: str) -> Pair:
    target, id_ = await tag(side, f"t{n}"), str(uuid.uuid4())
    use = ("shared", "vm", "create", create_args(id_, tags=[target.id]))
    return Pair(use, *_rest(side, target, lambda: lives(side, Ref("shared", "vm", id_))))


async def create_and_image(side: WriteSide, n: str) -> Pair:
    target, id_ = await available(side, f"i{n}"), str(uuid.uuid4())
    use = ("shared", "vm", "create", create_args(id_, target.id))
    return Pair(use, *_rest(side, target, lambda: lives(side, Ref("shared", "vm", id_))))


async def change_and_tag(side: WriteSide, n: str) -> Pair:
    target, its = await tag(side, f"c{n}"), await failed_vm(side, "shared", "shared")

    async def used() -> bool:
        found = await vm_of(side, its)
        return found is not None and target.id in found.tags

    return Pair(("shared", "vm", "change", {"vm": its.id, "tags": [target.id]}), *_rest(side, target, used))


async def rebuild_and_image(side: WriteSide, n: str) -> Pair:
    target, its = await available(side, f"r{n}"), await failed_vm(side, "shared", "shared")

    async def used() -> bool:
        found = await vm_of(side, its)
        return found is not None and found.image == target.id

    return Pair(("shared", "vm", "rebuild", {"vm": its.id, "image": target.id}), *_rest(side, target, used))


async def register_and_project(side: WriteSide, n: str) -> Pair:
    target, own = await project(side, f"o{n}"), Ref("system", "image", f"o{n}")
    source = side.home / "own.raw"
    if not source.exists():
        source.write_bytes(raw_disk())
    args = {"image": own.id, "name": "Own", "source": str(source), "project": target.id}

    async def used() -> bool:
        return (await side.store.load(own, image.evolve)).state is not None

    return Pair(("system", "image", "register", args), *_rest(side, target, used))


async def project_and_tag(side: WriteSide, n: str) -> Pair:
    """A project is made with a tag."""
    target, id_ = await tag(side, f"n{n}"), f"n{n}"

    async def used() -> bool:
        return (await side.store.load(Ref(id_, "project", id_), evolve)).state is not None

    args = {"project": id_, "name": "N", "tags": [target.id]}
    return Pair((id_, "project", "create", args), *_rest(side, target, used))


async def tagged_project_and_tag(side: WriteSide, n: str) -> Pair:
    """A project gets a tag."""
    target, its = await tag(side, f"g{n}"), await project(side, f"g{n}")

    async def used() -> bool:
        found = (await side.store.load(its, evolve)).state
        return found is not None and target.id in found.tags

    args = {"project": its.id, "tags": [target.id]}
    return Pair((its.id, "project", "change", args), *_rest(side, target, used))


def _rest(side: WriteSide, target: Ref, used: Callable[[], Awaitable[bool]]) -> Sequence[Any]:
    delete, deleted = deletion(side, target)
    return delete, used, deleted
