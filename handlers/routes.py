"""The write side as one table: which command each subject stands for, on which aggregate, by which rules."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from domain import image, node, project, vm
from domain.base import Command, Event, Rejected, Sealed
from domain.placement import Policy, attainable, grown
from eventstore.envelope import Ref
from eventstore.store import Change
from eventstore.vault import Vault
from handlers.world import World
from runtime import subjects

MOST_USER_DATA = 64 * 1024
#: Images that nobody can use any more.
OVER = (image.ImagePhase.DELETED, image.ImagePhase.REJECTED)

Args = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What a command may look up beyond its own aggregate."""

    world: World
    vault: Vault
    policy: Policy = field(default_factory=Policy)


Prepare = Callable[[Args, str, Facts], Awaitable[Args]]


@dataclass(frozen=True)
class Route:
    """One row: the command's class, the argument that names the aggregate, and what to look up first."""

    command: type[Command]
    decide: Callable[[Any, Any], Any]
    key: str
    prepare: Prepare | None = None
    creates: bool = False
    beside: Callable[[Any, Sequence[Event], Facts], Sequence[Change]] | None = None


async def create_vm(args: Args, project_id: str, facts: Facts) -> Args:
    """Project, image and tags exist; the user-data is sealed before anything is stored."""
    live_project(project_id, facts.world)
    found = available(args.get("image"), project_id, facts.world)
    known_tags(args, facts.world)
    spec = args.get("spec") or {}
    too_small(spec, found)
    with contextlib.suppress(ValidationError):  # the command itself tells what is wrong with it
        attainable(vm.Spec.model_validate(spec).resources(), args.get("region"), facts.world.nodes(), facts.policy)
    return {**args, "project": project_id, "user_data": await sealed(args, facts.vault)}


async def rebuild_vm(args: Args, project_id: str, facts: Facts) -> Args:
    """The image is there and fits; the user-data is sealed. Whether there is such a VM is the rules' business."""
    known = facts.world.vm(str(args.get("vm")))
    if known is None or known.state is None or known.state.project != project_id:
        return {**args, "image": "none", "user_data": None}
    found = available(args.get("image") or known.state.image, project_id, facts.world)
    too_small(known.state.spec.model_dump(), found)
    host = facts.world.node(known.state.node) if known.state.node else None
    if host is not None and host.info.architecture != found.architecture:
        detail = f"image {found.id} is for {found.architecture}, and node {host.id} has {host.info.architecture} CPUs"
        raise Rejected("wrong_architecture", detail, status=422, field="image")
    return {**args, "image": found.id, "user_data": await sealed(args, facts.vault)}


async def sealed(args: Args, vault: Vault) -> Sealed | None:
    """The user-data, so that the log cannot tell it."""
    text = args.get("user_data")
    if not text:
        return None
    if not isinstance(text, str) or len(text.encode()) > MOST_USER_DATA or "\0" in text:
        raise Rejected(
            "invalid_user_data",
            f"user_data has to be text of at most {MOST_USER_DATA} bytes",
            status=422,
            field="user_data",
        )
    return await vault.seal(str(args["vm"]), text)


async def register_image(args: Args, project_id: str, facts: Facts) -> Args:
    """The project that an image is to belong to is there."""
    owner = args.get("project")
    if owner is not None:
        found = facts.world.project(str(owner))
        if found is None or found.deleted:
            raise Rejected("project_not_found", f"there is no project {owner}", status=422, field="project")
    return args


def available(id_: Any, project_id: str, world: World) -> image.Image:
    """The image, if it can be used. One of another project is not there. Raises Rejected."""
    found = world.image(str(id_))
    if found is None or found.phase is image.ImagePhase.DELETED or not found.visible(project_id):
        raise Rejected("image_not_found", f"there is no image {id_}", status=422, field="image")
    if found.phase is not image.ImagePhase.AVAILABLE:
        raise Rejected("image_not_available", f"image {found.id} is {found.phase}", field="image")
    return found


def too_small(spec: Mapping[str, Any], found: image.Image) -> None:
    asked = spec.get("disk_gib")
    virtual = found.virtual_size_bytes or 0
    if isinstance(asked, int) and asked * 1024**3 < virtual:
        least = -(-virtual // 1024**3)
        raise Rejected("disk_too_small", f"image {found.id} needs at least {least} GiB", status=422, field="disk_gib")


def live_project(project_id: str, world: World) -> None:
    found = world.project(project_id)
    if found is None or found.deleted:
        raise Rejected("project_not_found", f"there is no project {project_id}", status=404, field="project")


def known_tags(args: Args, world: World) -> None:
    for name in args.get("tags") or ():
        tag = world.tag(str(name))
        if tag is None or tag.deleted:
            raise Rejected("tag_not_found", f"there is no tag {name}; create it first", status=422, field="tags")


async def in_project(args: Args, project_id: str, facts: Facts) -> Args:
    known_tags(args, facts.world)
    return args


async def forget_vm(args: Args, project_id: str, facts: Facts) -> Args:
    """Whether the VM's node is lost is the node's own history."""
    found = facts.world.vm(str(args.get("vm")))
    at = facts.world.node(found.state.node) if found and found.state and found.state.node else None
    return {**args, "node_lost": at is not None and at.lost}


def reservation(before: vm.Vm | None, events: Sequence[Event], facts: Facts) -> Sequence[Change]:
    """What a resize changes in the books of the VM's node. Raises Rejected where there is no room."""
    resized = next((event for event in events if isinstance(event, vm.VmResized)), None)
    if before is None or resized is None:
        return ()
    wish = resized.spec.resources()
    grown(before, wish, facts.world.nodes(), facts.policy)
    if before.node is None:
        return ()
    books = facts.world.get(Ref(subjects.SYSTEM, "node", before.node))
    command = node.ChangeReservation(node=before.node, vm=before.id, resources=wish, at=resized.at)
    promised = node.decide(books.state, command)
    return [Change(books.tip, promised)] if promised else ()


async def delete_project(args: Args, project_id: str, facts: Facts) -> Args:
    own = [i.id for i in facts.world.images() if i.project == args.get("project") and i.phase not in OVER]
    if own:
        raise Rejected("project_not_empty", f"images belong to it: {', '.join(sorted(own)[:10])}; delete them first")
    return {**args, "vms": sum(v.project == args.get("project") for v in facts.world.vms())}


async def delete_tag(args: Args, project_id: str, facts: Facts) -> Args:
    tag, world = args.get("tag"), facts.world
    carrying = sum(not p.deleted and tag in p.tags for p in world.projects())
    return {**args, "vms": sum(tag in v.tags for v in world.vms()), "projects": carrying}


async def delete_image(args: Args, project_id: str, facts: Facts) -> Args:
    return {**args, "used_by": sum(v.image == args.get("image") for v in facts.world.vms())}


def _vm(command: type[Command], prepare: Prepare | None = None, *, creates: bool = False) -> Route:
    return Route(command, vm.decide, "vm", prepare, creates)


ROUTES: Mapping[tuple[str, str], Route] = {
    ("vm", "create"): _vm(vm.CreateVm, create_vm, creates=True),
    ("vm", "start"): _vm(vm.StartVm),
    ("vm", "stop"): _vm(vm.StopVm),
    ("vm", "restart"): _vm(vm.RestartVm),
    ("vm", "pause"): _vm(vm.PauseVm),
    ("vm", "resume"): _vm(vm.ResumeVm),
    ("vm", "suspend"): _vm(vm.SuspendVm),
    ("vm", "delete"): _vm(vm.DeleteVm),
    ("vm", "retry"): _vm(vm.RetryVm),
    ("vm", "abandon"): _vm(vm.AbandonVm),
    ("vm", "forget"): _vm(vm.ForgetVm, forget_vm),
    ("vm", "tag"): _vm(vm.TagVm, in_project),
    ("vm", "change"): _vm(vm.ChangeVm, in_project),
    ("vm", "resize"): Route(vm.ResizeVm, vm.decide, "vm", beside=reservation),
    ("vm", "rebuild"): _vm(vm.RebuildVm, rebuild_vm),
    ("vm", "guest-ready"): _vm(vm.RecordGuestReady),
    ("project", "create"): Route(project.CreateProject, project.decide_project, "project", in_project),
    ("project", "change"): Route(project.ChangeProject, project.decide_project, "project", in_project),
    ("project", "delete"): Route(project.DeleteProject, project.decide_project, "project", delete_project),
    ("tag", "create"): Route(project.CreateTag, project.decide_tag, "tag"),
    ("tag", "rename"): Route(project.RenameTag, project.decide_tag, "tag"),
    ("tag", "delete"): Route(project.DeleteTag, project.decide_tag, "tag", delete_tag),
    ("image", "register"): Route(image.RegisterImage, image.decide, "image", register_image),
    ("image", "delete"): Route(image.DeleteImage, image.decide, "image", delete_image),
    ("node", "register"): Route(node.RegisterNode, node.decide, "node"),
    ("node", "cordon"): Route(node.CordonNode, node.decide, "node"),
    ("node", "uncordon"): Route(node.UncordonNode, node.decide, "node"),
}


def reference(kind: str, project_id: str, id_: str) -> Ref:
    """Where an aggregate's events are: VMs and projects under their project, the rest under `system`."""
    match kind:
        case "vm":
            return Ref(project_id, kind, id_)
        case "project":
            return Ref(id_, kind, id_)
        case _:
            return Ref(subjects.SYSTEM, kind, id_)
