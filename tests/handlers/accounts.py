"""Users with tokens, and what is theirs and what is not: for the tests of permissions."""

import secrets
import string
import uuid
from dataclasses import dataclass
from typing import Any

from domain.access import CLOUD_ROLES, Role
from domain.flavor import FlavorCreated
from domain.image import ImageRegistered
from domain.vm.values import Spec
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, Tip
from handlers.apply import now
from tests.handlers.pairs import CONTEXT, done, image_made, vm_failed
from tests.handlers.platform import WriteSide

LETTERS = string.ascii_lowercase + string.digits
OWN, OTHER = "own", "other"


def token_id() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(12))


@dataclass(frozen=True)
class User:
    """A principal with a token, as a gateway speaks of it. It vouches for nothing, which handlers must not need."""

    principal: str
    token: str | None
    role: str = ""

    @property
    def caller(self) -> dict[str, Any]:
        return {"actor": self.principal, "credential": self.token, "grants": []}


async def ask(side: WriteSide, who: User, project: str, kind: str, verb: str, args: dict[str, Any], **more: Any) -> Any:
    return await side.ask(project, kind, verb, args, **{**who.caller, **more})


async def issue(side: WriteSide, principal: str, **limits: Any) -> User:
    """A token, from an operator."""
    id_ = token_id()
    args = {"token": id_, "digest": "ab" * 32, "name": "t", "principal": principal, **limits}
    await side.ok("system", "token", "issue", args)
    return User(principal, id_)


async def user(side: WriteSide, name: str, role: Role | None = None, project: str = OWN, **limits: Any) -> User:
    """A new user with a role, and its token."""
    await side.ok("system", "user", "create", {"user": name, "name": name})
    if role in CLOUD_ROLES:
        await side.ok("system", "user", "bind", {"user": name, "role": role})
    elif role is not None:
        args = {"project": project, "principal": f"user:{name}", "role": role}
        await side.ok(project, "project", "bind", args)
    made = await issue(side, f"user:{name}", **limits)
    return User(made.principal, made.token, str(role))


def unique(word: str) -> str:
    return f"{word}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Resources:
    """A resource of each kind: in each project, and (None) of no project."""

    ids: dict[tuple[str, str | None], str]

    def of(self, kind: str) -> list[tuple[str | None, str]]:
        return [(project, id_) for (of, project), id_ in self.ids.items() if of == kind]


async def furnish(side: WriteSide) -> Resources:
    """Make a resource of each kind."""
    ids: dict[tuple[str, str | None], str] = {("project", OWN): OWN, ("project", OTHER): OTHER}
    for project in (OWN, OTHER):
        await side.ok(project, "project", "create", {"project": project, "name": project})
        vm = vm_failed(project, "base")
        owned = ImageRegistered(
            **done(), deadline=now(), image=f"i-{project}", name="i", source="/none", project=project
        )
        image = Change(Tip(Ref("system", "image", owned.image)), [owned])
        await side.store.append([vm, image], CONTEXT)
        ids |= {("vm", project): vm.tip.ref.id, ("image", project): owned.image}
    flavors: list[tuple[str, str | None]] = [("f-all", None), ("f-own", OWN), ("f-other", OTHER)]
    for flavor, owner in flavors:
        size = Spec(vcpus=1, memory_mib=64, disk_gib=1)
        made = FlavorCreated(**done(), flavor=flavor, name=flavor, size=size, project=owner)
        await side.store.append([Change(Tip(Ref("system", "flavor", flavor)), [made])], CONTEXT)
        ids["flavor", owner] = flavor
    await side.store.append([image_made("base")], CONTEXT)
    await side.node("host-1")
    await side.ok("system", "tag", "create", {"tag": "blue", "name": "b"})
    await side.ok("system", "user", "create", {"user": "somebody", "name": "s"})
    await side.ok("system", "service_account", "create", {"service_account": "robot", "name": "r"})
    await side.ok("system", "enrollment", "issue", {"enrollment": "host-9", "digest": "cd" * 32})
    token = await issue(side, "user:somebody")
    named = {"image": "base", "node": "host-1", "tag": "blue", "user": "somebody", "service_account": "robot"}
    named |= {"enrollment": "host-9"}
    ids |= {(kind, None): id_ for kind, id_ in {**named, "token": str(token.token)}.items()}
    return Resources(ids)
