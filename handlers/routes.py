"""The write side as one table: which command each subject stands for, on which aggregate, by which rules."""

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from domain import image, node, project, tag, vm
from domain.base import Command, Event, Rejected
from domain.image_source import checked
from domain.placement import Policy, attainable, grown
from domain.references import Reference
from domain.vm.features import features, unknown
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, Tip
from eventstore.vault.vault import Vault
from handlers import image_secrets, user_data
from handlers.references import refers_to
from handlers.world import World
from runtime import subjects

MOST_USER_DATA = 64 * 1024
#: Bytes of user-data that are looked at without leaving the loop.
LOOKED_AT_HERE = 2048
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
    """One row: the command's class, the argument that names the aggregate, and what to look up first.

    `beside`: what stands or falls with its events, on other aggregates. `deletes`: it is answered once the deletion
    that it begins is decided.
    """

    command: type[Command]
    decide: Callable[[Any, Any], Any]
    key: str
    prepare: Prepare | None = None
    creates: bool = False
    beside: Callable[[Any, Sequence[Event], Facts], Sequence[Change | Tip]] | None = None
    deletes: bool = False

    @cached_property
    def operates(self) -> bool:
        """Whether a person's command is an operation, with a record."""
        return "operation" in self.command.model_fields


async def create_vm(args: Args, project_id: str, facts: Facts) -> Args:
    """Project, image and tags exist; the user-data is sealed before anything is stored."""
    said = args.get("spec")
    spec = said if isinstance(said, dict) else {}
    facts.world.references.usable(project_id, str(args.get("image")), tags_in(args), spec.get("disk_gib"))
    with contextlib.suppress(ValidationError):  # the command itself tells what is wrong with it
        args["spec"] = checked_spec = vm.Spec.model_validate(spec)
        attainable(checked_spec.resources(), args.get("region"), facts.world.nodes(), facts.policy)
    secret = await sealed(args, facts.vault)
    return {**args, "project": project_id, **secret}


async def rebuild_vm(args: Args, project_id: str, facts: Facts) -> Args:
    """The image is there; the user-data is sealed. Whether there is such a VM is the rules' business."""
    known = facts.world.vm(str(args.get("vm")))
    if known is None or known.state is None or known.state.project != project_id:
        args.pop("user_data_base64", None)
        return {**args, "image": "none", "user_data": None}
    found = facts.world.references.usable_image(str(args.get("image") or known.state.image), project_id)
    image.refuse_small_disk(found, known.state.spec.disk_gib)
    secret = await sealed(args, facts.vault)
    return {**args, "image": found.id, **secret}


async def sealed(args: Args, vault: Vault) -> Args:
    """The user-data, so that the log cannot tell it, and what its owner should know of it."""
    given = user_data_of(args)
    if given is None:
        return {"user_data": None, "notices": ()}
    data = user_data.cleaned(given)
    look = user_data.notices
    notices = look(data) if len(data) < LOOKED_AT_HERE else await asyncio.to_thread(look, data)
    return {"user_data": await vault.seal(str(args["vm"]), data), "notices": notices}


def user_data_of(args: Args) -> bytes | None:
    """The user-data as bytes, given as text or in base64; taken out of the arguments. None where none is given."""
    text, encoded = args.pop("user_data", None), args.pop("user_data_base64", None)
    if text and encoded:
        raise unfit("user_data_base64", "give either user_data or user_data_base64, not both")
    if encoded:
        try:
            data = base64.b64decode("".join(encoded.split()), validate=True)
        except (binascii.Error, ValueError, AttributeError, TypeError):
            raise unfit("user_data_base64", "user_data_base64 has to be base64") from None
        if len(data) > MOST_USER_DATA:
            raise unfit("user_data_base64", f"user_data_base64 may hold at most {MOST_USER_DATA} bytes")
        return data
    if text is None:
        return None if encoded is None else b""
    if not isinstance(text, str) or len(text.encode()) > MOST_USER_DATA or "\0" in text:
        raise unfit("user_data", f"user_data has to be text of at most {MOST_USER_DATA} bytes")
    return text.encode()


def unfit(field: str, detail: str) -> Rejected:
    return Rejected("invalid_user_data", detail, status=422, field=field)


async def register_image(args: Args, project_id: str, facts: Facts) -> Args:
    """The project that an image is to belong to is there; credentials in its source are sealed."""
    owner = args.get("project")
    if owner is not None:
        try:
            facts.world.references.usable_project(str(owner))
        except Rejected as refusal:
            status = 422 if refusal.status == 404 else refusal.status
            raise Rejected(refusal.code, refusal.detail, status=status, field="project") from None
    args.pop("sealed_source", None)
    source, operation = args.get("source"), args.get("operation")
    if isinstance(source, str) and operation is not None:
        try:
            source = checked(source)
        except ValueError:
            return args  # the command itself tells what is wrong with it
        args["source"], args["sealed_source"] = await image_secrets.sealed(source, str(operation), facts.vault)
    return args


def tags_in(args: Args) -> tuple[str, ...]:
    """The tags that arguments name; of anything else the command itself tells what is wrong with it."""
    said = args.get("tags")
    return tuple(name for name in said if isinstance(name, str)) if isinstance(said, list) else ()


def known_tags(args: Args, world: World) -> None:
    world.references.usable_tags(tags_in(args))


async def in_project(args: Args, project_id: str, facts: Facts) -> Args:
    known_tags(args, facts.world)
    return args


async def create_project(args: Args, project_id: str, facts: Facts) -> Args:
    """Its tags are there; VMs of an earlier project with its id are not."""
    known_tags(args, facts.world)
    return {**args, "vms": len(facts.world.references.users(Reference("project", str(args.get("project")))).vms)}


async def forget_vm(args: Args, project_id: str, facts: Facts) -> Args:
    """Whether the VM's node is lost, and where the VM's disk is, stand in the node's own history."""
    found = facts.world.vm(str(args.get("vm")))
    at = facts.world.node(found.state.node) if found and found.state and found.state.node else None
    return {**args, "node_lost": at is not None and at.lost, "folder": at.identity if at is not None else None}


def runs_there(before: vm.Vm | None, events: Sequence[Event], facts: Facts) -> Sequence[Tip]:
    """That the node of a VM can run the image that it is rebuilt from, in the same append."""
    rebuilt = next((event for event in events if isinstance(event, vm.VmRebuildRequested)), None)
    if before is None or before.node is None or rebuilt is None:
        return ()
    books = facts.world.get(Ref(subjects.SYSTEM, "node", before.node))
    base, host = facts.world.image(rebuilt.image), books.state
    if base is not None and host is not None and host.info.architecture != base.architecture:
        detail = f"image {base.id} is for {base.architecture}, and node {host.id} has {host.info.architecture} CPUs"
        raise Rejected("wrong_architecture", detail, status=422, field="image")
    return [books.tip]


def knows_it(before: vm.Vm | None, events: Sequence[Event], facts: Facts) -> Sequence[Tip]:
    """That the node of a VM knows what the VM is changed to need, in the same append."""
    changed = next((event for event in events if isinstance(event, vm.VmChanged)), None)
    if before is None or before.node is None or changed is None:
        return ()
    after = vm.evolve(before, changed)
    needed = features(after) if after is not None else ()
    if set(needed) <= set(features(before)):
        return ()
    books = facts.world.get(Ref(subjects.SYSTEM, "node", before.node))
    if books.state is not None and (lack := unknown(needed, books.state.info.features)) is not None:
        detail = f"node {before.node} {lack}; upgrade it first, since a VM stays on its node"
        raise Rejected("unsupported", detail, field="watchdog")
    return [books.tip]


def still_lost(before: vm.Vm | None, events: Sequence[Event], facts: Facts) -> Sequence[Tip]:
    """That the node of a VM that is forgotten is lost, in the same append."""
    return [facts.world.lost_node(before.node)] if before is not None and before.node is not None else ()


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
    users = facts.world.references.users(Reference("project", str(args.get("project"))))
    return {**args, "vms": len(users.vms), "images": tuple(users.images)}


async def delete_tag(args: Args, project_id: str, facts: Facts) -> Args:
    users = facts.world.references.users(Reference("tag", str(args.get("tag"))))
    return {**args, "vms": len(users.vms), "projects": len(users.projects)}


async def delete_image(args: Args, project_id: str, facts: Facts) -> Args:
    users = facts.world.references.users(Reference("image", str(args.get("image"))))
    return {**args, "used_by": len(users.vms)}


async def retire_node(args: Args, project_id: str, facts: Facts) -> Args:
    """Which VMs may still need the node: those on it that are neither lost, nor deleted or forgotten."""
    found = facts.world.node(str(args.get("node")))
    on_it = {id_: facts.world.vm(id_) for id_ in found.reservations} if found else {}
    needed = [id_ for id_, one in on_it.items() if one and one.state and one.state.phase is not vm.Phase.LOST]
    return {**args, "needed": tuple(needed)}


def basis(kind: str, args: Args, project_id: str, world: World) -> dict[Ref, Tip]:
    """The aggregates that a command's arguments refer to, as far as they are known."""
    named = [Reference("tag", name) for name in tags_in(args)]
    match kind:
        case "vm":
            its = args.get("image")
            if not its and (found := world.vm(str(args.get("vm")))) is not None and found.state is not None:
                its = found.state.image
            named += [Reference("project", project_id), Reference("image", str(its))]
        case "image" if args.get("project") is not None:
            named.append(Reference("project", str(args["project"])))
    return {ref: world.get(ref).tip for ref in map(refers_to, named)}


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
    ("vm", "forget"): Route(vm.ForgetVm, vm.decide, "vm", forget_vm, beside=still_lost),
    ("vm", "tag"): _vm(vm.TagVm, in_project),
    ("vm", "change"): Route(vm.ChangeVm, vm.decide, "vm", in_project, beside=knows_it),
    ("vm", "resize"): Route(vm.ResizeVm, vm.decide, "vm", beside=reservation),
    ("vm", "rebuild"): Route(vm.RebuildVm, vm.decide, "vm", rebuild_vm, beside=runs_there),
    ("vm", "guest-ready"): _vm(vm.RecordGuestReady),
    ("vm", "open-console"): _vm(vm.OpenConsole),
    ("vm", "close-console"): _vm(vm.CloseConsole),
    ("project", "create"): Route(project.CreateProject, project.decide, "project", create_project),
    ("project", "change"): Route(project.ChangeProject, project.decide, "project", in_project),
    ("project", "delete"): Route(project.DeleteProject, project.decide, "project", delete_project, deletes=True),
    ("tag", "create"): Route(tag.CreateTag, tag.decide, "tag"),
    ("tag", "rename"): Route(tag.RenameTag, tag.decide, "tag"),
    ("tag", "delete"): Route(tag.DeleteTag, tag.decide, "tag", delete_tag, deletes=True),
    ("image", "register"): Route(image.RegisterImage, image.decide, "image", register_image),
    ("image", "delete"): Route(image.DeleteImage, image.decide, "image", delete_image, deletes=True),
    ("node", "set-seed-url"): Route(node.SetSeedUrl, node.decide, "node"),
    ("node", "cordon"): Route(node.CordonNode, node.decide, "node"),
    ("node", "uncordon"): Route(node.UncordonNode, node.decide, "node"),
    ("node", "retire"): Route(node.RetireNode, node.decide, "node", retire_node),
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
