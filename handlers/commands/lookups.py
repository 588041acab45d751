"""Lookups of a command before it is decided, and the changes of other aggregates in the same append.

The resources that a command's fields name (`Names`) are looked up for every command. Here are further lookups.
"""

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from domain import image, node, project, vm
from domain.account import Account
from domain.base import Category, Command, Event, Rejected
from domain.contract.wanted import VM_NEEDS
from domain.flavor import Flavor
from domain.image_source import checked
from domain.placement import Policy, check_attainable, check_resize
from domain.principal import account_named
from domain.references import Reference, account_of, names_in, principals_in
from domain.token import IssueToken
from domain.verb import Effect, Verb
from domain.vm.features import features, unknown
from domain.vm.verb import VmVerb
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, Tip
from eventstore.vault.vault import Vault
from handlers.commands import user_data
from handlers.images import credentials
from handlers.world.references import refers_to
from handlers.world.world import World
from runtime import subjects

MOST_USER_DATA = 64 * 1024
#: User-data of fewer bytes is checked in the event loop, larger ones in a thread.
CHECKED_HERE = 2048
Args = dict[str, object]
"""The arguments of a command, with what was looked up."""


@dataclass(frozen=True)
class Facts:
    """What a command may read besides its own aggregate."""

    world: World
    vault: Vault
    policy: Policy = field(default_factory=Policy)


Prepare = Callable[[Args, str, Facts], Awaitable[Args]]
RelatedChanges = Callable[[Any, Sequence[Event], Facts], Sequence[Change | Tip]]


@dataclass(frozen=True)
class Lookup:
    """The lookups of a command. `prepare` completes the arguments, or raises Rejected. `related`: each function returns
    changes of other aggregates for the same append, and tips that must not change.

    `behind`: the command is appended first, and the resources that it names are checked after that (`fences.py`).
    """

    prepare: Prepare | None = None
    related: tuple[RelatedChanges, ...] = ()
    behind: bool = False


def named(command: type[Command], args: Args) -> dict[str, list[Reference]]:
    """The references in the arguments, by field; fields that name nothing are left out. Malformed values are skipped:
    the command's type refuses them.
    """
    found: dict[str, list[Reference]] = {}
    for name, kind in names_in(command):
        value = args.get(name)
        if isinstance(value, str):
            found[name] = [Reference(kind, value)]
        elif value and isinstance(value, list | tuple):
            found[name] = [Reference(kind, id_) for id_ in value if isinstance(id_, str)]
    for name in principals_in(command):
        account = account_of(value) if isinstance(value := args.get(name), str) else None
        if account is not None:
            found[name] = [account]
    return found


def all_named(command: type[Command], args: Args) -> Iterable[Reference]:
    return (reference for of in named(command, args).values() for reference in of)


async def check_named(command: type[Command], args: Args, project_id: str, facts: Facts) -> Args:
    """The arguments, if all resources that they name exist and may be used. Raises Rejected with the field."""
    for name, references in named(command, args).items():
        try:
            facts.world.references.usable(references, project_id)
        except Rejected as refusal:
            category = Category.INVALID if refusal.category is Category.NOT_FOUND else refusal.category
            raise Rejected(refusal.code, refusal.detail, category, field=name) from None
    return args


async def create_vm(args: Args, project_id: str, facts: Facts) -> Args:
    """Check project, image, tags, flavor and size, and seal the user-data before anything is stored."""
    args = checked_create(args, project_id, facts)
    secret = await sealed(args, facts.vault)
    return {**args, **secret}


def checked_create(args: Args, project_id: str, facts: Facts) -> Args:
    """The arguments of a create with its size, if all that they name may be used. Raises Rejected."""
    given = args.get("spec")
    spec = given if isinstance(given, dict) else {}
    args["project"] = project_id
    facts.world.references.usable(all_named(vm.CreateVm, args), project_id)
    if args.get("flavor") is not None and isinstance(given, dict | None):
        args["spec"] = spec = size_of_flavor(str(args["flavor"]), spec, facts)
    facts.world.references.check_disk(str(args.get("image")), spec.get("disk_gib"))
    with contextlib.suppress(ValidationError):  # the command itself tells what is wrong with it
        args["spec"] = checked_spec = vm.Spec.model_validate(spec)
        region = args.get("region")
        where = region if isinstance(region, str) else None
        check_attainable(checked_spec.resources(), where, facts.world.each_node(), facts.policy)
    return args


def size_of_flavor(flavor_id: str, given: Args, facts: Facts) -> Args:
    """The size of a VM made of a flavor. Its disk may be larger than the flavor's. Raises Rejected."""
    found = facts.world.references.lookup(refers_to(Reference("flavor", flavor_id)))
    if not isinstance(found, Flavor):
        return given
    if fixed := sorted({"vcpus", "memory_mib"} & given.keys()):
        detail = f"flavor {flavor_id} determines {fixed[0]}; leave it out"
        raise Rejected("invalid_request", detail, Category.INVALID, field=f"spec.{fixed[0]}")
    size = {**found.size.model_dump(), **given}
    with contextlib.suppress(ValidationError):  # the command itself tells what is wrong with it
        size["disk_gib"] = vm.Spec.model_validate(size).disk_gib  # "8" and 8.0 are 8
    if isinstance(size["disk_gib"], int) and size["disk_gib"] < found.size.disk_gib:
        detail = f"flavor {flavor_id} has a disk of {found.size.disk_gib} GiB; give as much or more"
        raise Rejected("disk_too_small", detail, Category.INVALID, field="spec.disk_gib")
    return size


async def rebuild_vm(args: Args, project_id: str, facts: Facts) -> Args:
    """Check the image, and seal the user-data. If there is no such VM, the rules refuse the command."""
    known = facts.world.vm(str(args.get("vm")))
    if known is None or known.state is None or known.state.project != project_id:
        args.pop("user_data_base64", None)
        return {**args, "image": "none", "user_data": None}
    base = str(args.get("image") or known.state.image)
    facts.world.references.usable([Reference("image", base)], project_id)
    facts.world.references.check_disk(base, known.state.spec.disk_gib)
    secret = await sealed(args, facts.vault)
    return {**args, "image": base, **secret}


async def sealed(args: Args, vault: Vault) -> Args:
    """The sealed user-data, and the notices about it."""
    data, notices = await judged_user_data(args)
    return {"user_data": None if data is None else await vault.seal(str(args["vm"]), data), "notices": notices}


async def judged_user_data(args: Args) -> tuple[bytes | None, tuple[vm.Notice, ...]]:
    """Remove the user-data from the arguments: its bytes (None if there is none), and the notices about it."""
    given = user_data_of(args)
    if given is None:
        return None, ()
    data = user_data.cleaned(given)
    check = user_data.notices
    return data, check(data) if len(data) < CHECKED_HERE else await asyncio.to_thread(check, data)


def user_data_of(args: Args) -> bytes | None:
    """Remove the user-data, text or base64, from the arguments, and return it as bytes. None if there is none."""
    text, encoded = args.pop("user_data", None), args.pop("user_data_base64", None)
    if text and encoded:
        raise unfit("user_data_base64", "give either user_data or user_data_base64, not both")
    if encoded:
        try:
            data = base64.b64decode("".join(str(encoded).split()), validate=True)
        except (binascii.Error, ValueError):
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
    return Rejected("invalid_user_data", detail, Category.INVALID, field=field)


async def register_image(args: Args, project_id: str, facts: Facts) -> Args:
    """Check the project of an image, and seal credentials in its source."""
    await check_named(image.RegisterImage, args, project_id, facts)
    args.pop("sealed_source", None)
    source, operation = args.get("source"), args.get("operation")
    if isinstance(source, str) and operation is not None:
        try:
            source = checked(source)
        except ValueError:
            return args  # the command itself tells what is wrong with it
        args["source"], args["sealed_source"] = await credentials.seal_source(source, str(operation), facts.vault)
    return args


async def create_project(args: Args, project_id: str, facts: Facts) -> Args:
    """Check the tags, and fill in what still belongs to an earlier project with this id."""
    await check_named(project.CreateProject, args, project_id, facts)
    return await users_of("project", args, project_id, facts)


async def issue_token(args: Args, _: str, facts: Facts) -> Args:
    """Fill in the incarnation of the token's account, so that a later account with its id cannot use the token."""
    args.pop("incarnation", None)
    given = args.get("principal") or args.get("created_by")
    if not isinstance(given, str):
        return args
    account = account_named(given, "principal")
    facts.world.references.usable([account], subjects.SYSTEM)
    found = facts.world.get(refers_to(account)).state
    return {**args, "incarnation": found.incarnation if isinstance(found, Account) else None}


async def users_of(kind: str, args: Args, _: str, facts: Facts) -> Args:
    """Fill in the resources that refer to the resource."""
    return {**args, "users": facts.world.references.users(Reference(kind, str(args.get(kind))))}


async def forget_vm(args: Args, project_id: str, facts: Facts) -> Args:
    """Fill in whether the VM's node is lost, and the folder of its last daemon, which has the VM's disk."""
    found = facts.world.vm(str(args.get("vm")))
    at = facts.world.node(found.state.node) if found and found.state and found.state.node else None
    return {**args, "node_lost": at is not None and at.lost, "folder": at.identity if at is not None else None}


def check_features(before: vm.Vm | None, events: Sequence[Event], facts: Facts) -> Sequence[Tip]:
    """Require, in the same append, that the VM's node knows the features that the VM needs after the events."""
    if before is None or before.node is None:
        return ()
    after: vm.Vm | None = before
    for event in events:
        after = vm.evolve(after, event)
    needed = features(after) if after is not None else ()
    if set(needed) <= set(features(before)):
        return ()
    loaded = facts.world.get(Ref(subjects.SYSTEM, "node", before.node))
    if loaded.state is not None and (lack := unknown(needed, loaded.state.info.features)) is not None:
        detail = f"node {before.node} {lack}; upgrade it first, because a VM stays on its node"
        changed = {name for event in events for name in type(event).model_fields}
        raise Rejected("unsupported", detail, field=next((name for name in VM_NEEDS if name in changed), None))
    return [loaded.tip]


@dataclass(frozen=True)
class NamedImages:
    """The checks of the images that a verb of a VM names. `fields`: the fields of its event that name them."""

    event: type[Event]
    fields: tuple[str, ...]

    def of(self, events: Sequence[Event]) -> list[tuple[str, str]]:
        """The named images, as pairs of field and id."""
        found = [vars(event) for event in events if isinstance(event, self.event)]
        return [(name, values[name]) for values in found for name in self.fields if values[name] is not None]

    def check_size(self, before: vm.Vm | None, events: Sequence[Event], facts: Facts) -> Sequence[Tip]:
        """Raises Rejected if one does not fit on a disk of the VM's size."""
        if before is None:
            return ()
        for name, image_id in self.of(events):
            try:
                facts.world.references.check_disk(image_id, before.spec.disk_gib)
            except Rejected as small:
                raise Rejected(small.code, small.detail, small.category, field=name) from None
        return ()

    def check_architecture(self, before: vm.Vm | None, events: Sequence[Event], facts: Facts) -> Sequence[Tip]:
        """Require, in the same append, that the CPUs of the VM's node can run them."""
        named = self.of(events)
        if before is None or before.node is None or not named:
            return ()
        loaded = facts.world.get(Ref(subjects.SYSTEM, "node", before.node))
        for name, image_id in named:
            base, host = facts.world.image(image_id), loaded.state
            if base is not None and host is not None and host.info.architecture != base.architecture:
                detail = (
                    f"image {base.id} is for {base.architecture}, and node {host.id} has {host.info.architecture} CPUs"
                )
                raise Rejected("wrong_architecture", detail, Category.INVALID, field=name)
        return [loaded.tip]


def check_node_lost(before: vm.Vm | None, events: Sequence[Event], facts: Facts) -> Sequence[Tip]:
    """Require, in the same append, that the node of a forgotten VM is lost."""
    return [facts.world.lost_node(before.node)] if before is not None and before.node is not None else ()


def reservation(before: vm.Vm | None, events: Sequence[Event], facts: Facts) -> Sequence[Change]:
    """The change of the reservation on the VM's node after a resize. Raises Rejected if there is no room."""
    resized = next((event for event in events if isinstance(event, vm.VmResized)), None)
    if before is None or resized is None:
        return ()
    size = resized.spec.resources()
    check_resize(before, size, facts.world.nodes(), facts.policy)
    if before.node is None:
        return ()
    loaded = facts.world.get(Ref(subjects.SYSTEM, "node", before.node))
    command = node.ChangeReservation(node=before.node, vm=before.id, resources=size, at=resized.at)
    changed = node.decide(loaded.state, command)
    return [Change(loaded.tip, changed)] if changed else ()


async def retire_node(args: Args, project_id: str, facts: Facts) -> Args:
    """Fill in the VMs on the node that are neither lost, deleted nor forgotten."""
    found = facts.world.node(str(args.get("node")))
    on_it = {id_: facts.world.vm(id_) for id_ in found.reservations} if found else {}
    needed = [id_ for id_, one in on_it.items() if one and one.state and one.state.phase is not vm.Phase.LOST]
    return {**args, "needed": tuple(needed)}


def basis(command: type[Command], args: Args, project_id: str, world: World) -> dict[Ref, Tip]:
    """The aggregates that a command's arguments name, with the last event of each that is known."""
    if command is vm.RebuildVm and not args.get("image"):
        found = world.vm(str(args.get("vm")))
        args = {**args, "image": found.state.image if found is not None and found.state is not None else None}
    if command is vm.CreateVm:
        args = {**args, "project": project_id}
    return {ref: world.get(ref).tip for ref in map(refers_to, all_named(command, args))}


#: The commands that need further lookups than those that follow from their fields (`lookup_of`).
LOOKUPS: Mapping[type[Command], Lookup] = {
    vm.CreateVm: Lookup(create_vm, behind=True),
    vm.ForgetVm: Lookup(forget_vm, related=(check_node_lost,)),
    vm.ChangeVm: Lookup(related=(check_features,)),
    vm.ResizeVm: Lookup(related=(reservation,)),
    vm.RebuildVm: Lookup(rebuild_vm),
    project.CreateProject: Lookup(create_project),
    image.RegisterImage: Lookup(register_image),
    node.RetireNode: Lookup(retire_node),
    IssueToken: Lookup(issue_token),
}


def lookup_of(verb: Verb[Any]) -> Lookup:
    """All lookups of the command of a verb.

    If the command names images for an existing VM, they are checked against the VM's disk and node. Raises TypeError if
    its event does not have the same fields: no process starts with such a verb.
    """
    command: type[Command] = verb.command
    lookup = LOOKUPS.get(command, Lookup())
    fields = tuple(name for name, kind in names_in(command) if kind == "image")
    if not fields or not isinstance(verb, VmVerb) or verb.effect is Effect.CREATES:
        return lookup
    if forgotten := sorted(set(fields) - set(verb.event.model_fields)):
        raise TypeError(f"{command.__name__} names an image in {', '.join(forgotten)}, {verb.event.__name__} does not")
    images = NamedImages(verb.event, fields)
    checks = (images.check_size, check_features, images.check_architecture)
    return replace(lookup, related=(*lookup.related, *checks))
