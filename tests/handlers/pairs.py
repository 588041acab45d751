"""Pairs of commands of which exactly one may win: one that begins to use something, and its deletion."""

import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.image import Image, ImagePhase, ImageRegistered, ImageVerified
from domain.project import ProjectCreated
from domain.service_account import ServiceAccountCreated
from domain.tag import TagCreated
from domain.user import UserCreated
from domain.vm import Phase, VmOperationTimedOut, VmRequested
from eventstore.log.envelope import Context, Ref
from eventstore.log.store import Change, Tip
from handlers.apply import now
from runtime.bus.streams import ensure_all
from tests.handlers.platform import WriteSide, write_side

CONTEXT = Context(actor="tester")
#: How many aggregates begin in one batch.
MOST = 100
SPEC = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}


def done() -> dict[str, Any]:
    return {"at": now(), "operation": str(uuid.uuid4()), "fingerprint": "f"}


def project_made(id_: str) -> Change:
    return Change(Tip(Ref(id_, "project", id_)), [ProjectCreated(**done(), project=id_, name=id_)])


def tag_made(id_: str) -> Change:
    return Change(Tip(Ref("system", "tag", id_)), [TagCreated(**done(), tag=id_, name=id_)])


def user_made(id_: str) -> Change:
    return Change(Tip(Ref("system", "user", id_)), [UserCreated(**done(), user=id_, name=id_)])


def image_made(id_: str) -> Change:
    """An image that is available."""
    registered = ImageRegistered(**done(), deadline=now(), image=id_, name=id_, source="/none", sha256="0" * 64)
    verified = ImageVerified(at=now(), sha256="0" * 64, format="raw", size_bytes=1, virtual_size_bytes=1)
    return Change(Tip(Ref("system", "image", id_)), [registered, verified])


def vm_failed(project_id: str, image_id: str) -> Change:
    """A VM that never came up: nothing is pending, and it may be rebuilt."""
    id_ = str(uuid.uuid4())
    asked = done()
    made = {"vm": id_, "project": project_id, "name": "web", "image": image_id, "spec": SPEC}
    late = VmOperationTimedOut(at=now(), operation=asked["operation"], verb="create")
    return Change(Tip(Ref(project_id, "vm", id_)), [VmRequested(**asked, deadline=now(), **made), late])


async def put_all(side: WriteSide, changes: Sequence[Change]) -> None:
    """Append the first events of aggregates, as handlers once did: many in one batch."""
    for start in range(0, len(changes), MOST):
        await side.store.append(changes[start : start + MOST], CONTEXT)


async def put(side: WriteSide, change: Change) -> Ref:
    await side.store.append([change], CONTEXT)
    return change.tip.ref


async def project(side: WriteSide, id_: str) -> Ref:
    return await put(side, project_made(id_))


async def tag(side: WriteSide, id_: str) -> Ref:
    return await put(side, tag_made(id_))


async def available(side: WriteSide, id_: str) -> Ref:
    return await put(side, image_made(id_))


async def failed_vm(side: WriteSide, project_id: str, image_id: str) -> Ref:
    return await put(side, vm_failed(project_id, image_id))


@asynccontextmanager
async def shared(home: Path) -> AsyncIterator[WriteSide]:
    """A server of its own with what pairs share: a project and an image. No handlers."""
    home.mkdir()
    async with write_side(home) as made:
        await ensure_all(made.nc.jetstream(), 1)
        await project(made, "shared")
        await available(made, "shared")
        yield made


class HeadStart:
    """How much earlier one of a pair is sent: up to twice what an answer takes here, so that either may win."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        self._answer = 0.004

    def next(self) -> float:
        """Seconds; negative where the second one is sent first."""
        return self._random.uniform(-2, 2) * self._answer

    def answered(self, seconds: float) -> None:
        self._answer += (seconds - self._answer) / 8


States = Mapping[Ref, Any]
Command = tuple[str, str, str, dict[str, Any]]


@dataclass(frozen=True)
class Pair:
    """Two commands (project, kind, verb, args): one that uses the first of what stands there before, and its deletion.

    `used`: whether the log says that the first command won.
    """

    before: Sequence[Change]
    use: Command
    used: Callable[[States], bool]

    @property
    def target(self) -> Ref:
        return self.before[0].tip.ref

    @property
    def delete(self) -> Command:
        return self.target.project, self.target.kind, "delete", {self.target.kind: self.target.id}

    def deleted(self, states: States) -> bool:
        state = states[self.target]
        return bool(state.phase is ImagePhase.DELETED if isinstance(state, Image) else state.deleted)


def lives(ref: Ref) -> Callable[[States], bool]:
    """Whether there is such a VM, and it is not deleted."""
    return lambda states: ref in states and states[ref].phase is not Phase.DELETED


def create_args(id_: str, image_id: str = "shared", **more: Any) -> dict[str, Any]:
    return {"vm": id_, "name": "web", "image": image_id, "spec": SPEC, **more}


def create_and_project(n: str, home: Path) -> Pair:
    target, id_ = f"p{n}", str(uuid.uuid4())
    use = (target, "vm", "create", create_args(id_))
    return Pair([project_made(target)], use, lives(Ref(target, "vm", id_)))


def create_and_tag(n: str, home: Path) -> Pair:
    target, id_ = f"t{n}", str(uuid.uuid4())
    use = ("shared", "vm", "create", create_args(id_, tags=[target]))
    return Pair([tag_made(target)], use, lives(Ref("shared", "vm", id_)))


def create_and_image(n: str, home: Path) -> Pair:
    target, id_ = f"i{n}", str(uuid.uuid4())
    use = ("shared", "vm", "create", create_args(id_, target))
    return Pair([image_made(target)], use, lives(Ref("shared", "vm", id_)))


def change_and_tag(n: str, home: Path) -> Pair:
    target, its = f"c{n}", vm_failed("shared", "shared")
    use = ("shared", "vm", "change", {"vm": its.tip.ref.id, "tags": [target]})
    return Pair([tag_made(target), its], use, lambda states: target in states[its.tip.ref].tags)


def rebuild_and_image(n: str, home: Path) -> Pair:
    target, its = f"r{n}", vm_failed("shared", "shared")
    use = ("shared", "vm", "rebuild", {"vm": its.tip.ref.id, "image": target})
    return Pair([image_made(target), its], use, lambda states: bool(states[its.tip.ref].image == target))


def register_and_project(n: str, home: Path) -> Pair:
    """An image of a project is registered."""
    target, own = f"o{n}", Ref("system", "image", f"o{n}")
    args = {"image": own.id, "name": "Own", "source": str(home / "own.raw"), "project": target}
    return Pair([project_made(target)], ("system", "image", "register", args), lambda states: own in states)


def project_and_tag(n: str, home: Path) -> Pair:
    """A project is made with a tag."""
    target, new = f"n{n}", Ref(f"n{n}", "project", f"n{n}")
    use = (new.project, "project", "create", {"project": new.id, "name": "N", "tags": [target]})
    return Pair([tag_made(target)], use, lambda states: new in states)


def tagged_project_and_tag(n: str, home: Path) -> Pair:
    """A project gets a tag."""
    target, its = f"g{n}", project_made(f"g{n}")
    use = (target, "project", "change", {"project": target, "tags": [target]})
    return Pair([tag_made(target), its], use, lambda states: target in states[its.tip.ref].tags)


def bind_and_user(n: str, home: Path) -> Pair:
    """A user gets a role in a project."""
    target, its = f"u{n}", project_made(f"b{n}")
    use = (
        its.tip.ref.id,
        "project",
        "bind",
        {"project": its.tip.ref.id, "principal": f"user:{target}", "role": "admin"},
    )
    return Pair([user_made(target), its], use, lambda states: f"user:{target}" in states[its.tip.ref].members)


def bind_and_service_account(n: str, home: Path) -> Pair:
    target, its = f"s{n}", project_made(f"a{n}")
    made = ServiceAccountCreated(**done(), service_account=target, name=target)
    given = {"project": its.tip.ref.id, "principal": f"service:{target}", "role": "viewer"}
    return Pair(
        [Change(Tip(Ref("system", "service_account", target)), [made]), its],
        (its.tip.ref.id, "project", "bind", given),
        lambda states: f"service:{target}" in states[its.tip.ref].members,
    )


ALL = (
    *(create_and_project, create_and_tag, create_and_image, change_and_tag, rebuild_and_image),
    *(register_and_project, project_and_tag, tagged_project_and_tag, bind_and_user, bind_and_service_account),
)
