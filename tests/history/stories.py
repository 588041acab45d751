"""The stories behind the golden files: `python -m tests.history.stories` writes those that have no file yet.

A story that has a file is never edited: a new event type, or a new shape of one, gets a new story at the end. Those of
VMs are in `vm_stories.py`.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from domain import idempotency, image, maintenance, node, project, tag, vm
from domain.access import Role
from domain.base import Event, ReferenceChecked, Sealed
from domain.contract import Fetch, Firmware, SeedMedium
from domain.enrollment import ENROLLMENT
from domain.flavor import FLAVOR, ChangeFlavor, CreateFlavor, DeleteFlavor, DeprecateFlavor, RestoreFlavor
from domain.idempotency import OperationKeyed
from domain.kinds import KINDS
from domain.project import BindRole, ChangeProject, CreateProject, DeleteProject, UnbindRole
from domain.tag import CreateTag, DeleteTag, RenameTag
from eventstore.log.envelope import GENESIS, Context, Ref, seal
from eventstore.log.upcast import TYPE_VERSION
from tests.domain import (
    test_account as accounts,
    test_enrollment as enrollments,
    test_flavor as flavors,
    test_image as images,
    test_node as nodes,
    test_project as projects,
    test_token as tokens,
)
from tests.domain.story import at, uid
from tests.history.vm_stories import VM_STORIES

HERE = Path(__file__).parent

Decide = Callable[[Any, Any], Sequence[Event]]
Evolve = Callable[[Any, Event], Any]

VM: tuple[Decide, Evolve] = (vm.decide, vm.evolve)
NODE: tuple[Decide, Evolve] = (node.decide, node.evolve)
IMAGE: tuple[Decide, Evolve] = (image.decide, image.evolve)
PROJECT: tuple[Decide, Evolve] = (project.decide, project.evolve)
TAG: tuple[Decide, Evolve] = (tag.decide, tag.evolve)
USER, SERVICE_ACCOUNT, TOKEN = (
    (KINDS[kind].decide, KINDS[kind].evolve) for kind in ("user", "service_account", "token")
)


def checked(state: Any, command: Any) -> Sequence[Event]:
    """What a command leads to, and what the log adds to it where it is built on another aggregate."""
    return [*tag.decide(state, command), ReferenceChecked(project="p", kind="project", id="p", position=7)]


CHECKED: tuple[Decide, Evolve] = (checked, tag.evolve)
KEY_USED: tuple[Decide, Evolve] = (lambda state, event: [event], idempotency.evolve)

#: By file name, which begins with the aggregate's kind.
STORIES: dict[str, tuple[tuple[Decide, Evolve], list[Any]]] = {
    **{name: (VM, commands) for name, commands in VM_STORIES.items()},
    "node-1": (
        NODE,
        [
            nodes.register(),
            nodes.reserve(1),
            nodes.reserve(2),
            nodes.cordon(),
            nodes.LOSE,
            nodes.register(memory_mib=8192, virt_type="qemu"),
            nodes.RECOVER,
            nodes.uncordon(),
            node.Release(node="n1", vm=uid(1), at=at(9)),
        ],
    ),
    "image-1-available": (IMAGE, [images.register(), images.ACCEPT]),
    "image-2-again": (
        IMAGE,
        [
            images.register(),
            images.REJECT,
            images.register(11, source="https://images.example/base.raw"),
            images.delete(),
            images.register(12),
        ],
    ),
    "image-3-uefi": (IMAGE, [images.register(firmware=Firmware.UEFI), images.ACCEPT]),
    "image-4-seed-disk": (IMAGE, [images.register(seed=SeedMedium.DISK), images.ACCEPT]),
    "image-3-imported": (
        IMAGE,
        [
            images.register(
                source="https://images.example/trixie.qcow2",
                sha256=None,
                sha512="cd" * 64,
                distribution="debian",
                release="13",
                architecture="aarch64",
                description="Klein, für alle.",
                project="acme",
            ),
            images.PROGRESS,
            images.PROGRESS.model_copy(update={"bytes_done": 9, "bytes_total": None}),
            images.ACCEPT.model_copy(update={"sha256": images.SHA256}),
        ],
    ),
    "project-1": (
        PROJECT,
        [
            projects.ask(CreateProject, 10, name="Überall 雲", tags=("a", "b")),
            projects.ask(ChangeProject, 11, name="Default", tags=("b",)),
            projects.ask(DeleteProject, 12),
        ],
    ),
    "project-2-ssh-keys": (
        PROJECT,
        [
            projects.ask(CreateProject, 10, name="Keys", ssh_keys=("ssh-ed25519 AAAA é",)),
            projects.ask(ChangeProject, 11, ssh_keys=("ssh-ed25519 AAAA b", "ssh-ed25519 AAAA c")),
            projects.ask(ChangeProject, 12, ssh_keys=()),
        ],
    ),
    "tag-1": (
        TAG,
        [
            projects.ask(CreateTag, 10, name="Web"),
            projects.ask(RenameTag, 11, name="WWW"),
            projects.ask(DeleteTag, 12),
        ],
    ),
    "project-3-deletions": (
        PROJECT,
        [
            projects.ask(CreateProject, 10, name="P"),
            projects.ask(DeleteProject, 11),
            projects.finish("project", vms=1),
            projects.ask(DeleteProject, 12),
            projects.finish("project"),
        ],
    ),
    "tag-2-deletions": (
        TAG,
        [
            projects.ask(CreateTag, 10, name="Web"),
            projects.ask(DeleteTag, 11),
            projects.finish("tag", projects=1),
            projects.ask(DeleteTag, 12),
            projects.finish("tag"),
        ],
    ),
    "image-5-deletions": (
        IMAGE,
        [
            images.register(),
            images.ACCEPT,
            images.delete(11),
            images.finish(used_by=1),
            images.delete(12),
            images.finish(),
        ],
    ),
    "image-6-sealed-source": (
        IMAGE,
        [
            images.register(
                source="https://images.example/base.qcow2",
                sealed_source=Sealed(key="image.base", nonce="bm9uY2U=", ciphertext="c2VhbGVk", size=48),
            ),
            images.ACCEPT,
        ],
    ),
    "node-2-leased": (NODE, [nodes.lease(nodes.daemon()), nodes.SEED_URL, nodes.RETURN]),
    "node-3-retired": (NODE, [nodes.register(), nodes.LOSE, nodes.retire(), nodes.take_over()]),
    "tag-3-checked": (CHECKED, [projects.ask(CreateTag, 10, name="Web")]),
    "project-4-described": (
        PROJECT,
        [
            projects.ask(CreateProject, 10, name="Shop", description="all of it"),
            projects.ask(ChangeProject, 11, description=""),
        ],
    ),
    "operation-1": (KEY_USED, [OperationKeyed(at=at(0), operation_id=uid(10), kind="tag", resource="web")]),
    "flavor-1": (
        (FLAVOR.decide, FLAVOR.evolve),
        [
            flavors.ask(CreateFlavor, 10, project="p", labels={"a": "b"}, description="d"),
            flavors.ask(ChangeFlavor, 11, name="S"),
            flavors.ask(DeprecateFlavor, 12),
            flavors.ask(RestoreFlavor, 13),
            flavors.ask(DeleteFlavor, 14),
            flavors.finish(1),
            flavors.ask(DeleteFlavor, 15),
            flavors.finish(),
        ],
    ),
    "project-5-members": (
        PROJECT,
        [
            projects.ask(CreateProject, 10, name="Shop"),
            projects.ask(BindRole, 15, principal="user:ada", role=Role.ADMIN),
            projects.ask(BindRole, 11, principal="service:ci", role=Role.MEMBER),
            projects.ask(BindRole, 12, principal="oidc:https://issuer.example#7", role=Role.VIEWER),
            projects.ask(BindRole, 13, principal="service:ci", role=Role.ADMIN),
            projects.ask(UnbindRole, 14, principal="user:ada"),
        ],
    ),
    "user-1": (USER, accounts.life("user")),
    "service_account-1": (SERVICE_ACCOUNT, accounts.life("service_account")),
    "token-1": (TOKEN, [tokens.issue(), tokens.revoke()]),
    "token-2-limited": (
        TOKEN,
        [tokens.issue(project="shop", role=Role.VIEWER, read_only=True, expires_at=at(99))],
    ),
    "image-7-fetched-from-its-source": (IMAGE, [images.register(fetch=Fetch.SOURCE), images.ACCEPT]),
    "enrollment-1": (
        (ENROLLMENT.decide, ENROLLMENT.evolve),
        [
            enrollments.issue(10),
            enrollments.join(),
            enrollments.join(key=enrollments.OTHER_KEY),
            enrollments.issue(11, digest=enrollments.OTHER),
            enrollments.join(digest=enrollments.OTHER, key=enrollments.OTHER_KEY),
            enrollments.revoke(12),
            enrollments.issue(13, digest="cc" * 32),
            enrollments.withdraw(),
        ],
    ),
    "enrollment-2-guest-data": (
        (ENROLLMENT.decide, ENROLLMENT.evolve),
        [
            enrollments.issue(10),
            enrollments.join(guest="U" + "C" * 55),
            enrollments.issue(11, digest=enrollments.OTHER),
            enrollments.join(digest=enrollments.OTHER, key=enrollments.OTHER_KEY, guest="U" + "D" * 55),
            enrollments.revoke(12),
        ],
    ),
    "maintenance-1": (
        (maintenance.decide, maintenance.evolve),
        [
            maintenance.RecordMaintenance(
                maintenance=uid(10),
                at=at(0),
                call="STREAM.PURGE",
                target="NEBULA_PARKED",
                credential="U" + "A" * 55,
                address="127.0.0.1",
                request='{"filter": "nebula.parked.log.p-1"}',
                refused="stream not found",
                count=2,
            )
        ],
    ),
}

EVOLVE: dict[str, Evolve] = {**{name: kind.evolve for name, kind in KINDS.items()}, "operation": idempotency.evolve}
EVOLVE["maintenance"] = maintenance.evolve
STATES: dict[str, TypeAdapter[Any]] = {
    **{name: kind.stored for name, kind in KINDS.items()},
    "operation": TypeAdapter(idempotency.Key),
    "maintenance": TypeAdapter(maintenance.Maintenance),
}


def told(decide: Decide, evolve: Evolve, commands: Sequence[Any]) -> tuple[list[dict[str, Any]], Any]:
    """What stands in the log after these commands: type and body of each event; and the state it folds into."""
    state: Any = None
    lines: list[dict[str, Any]] = []
    for command in commands:
        events = decide(state, command)
        assert events, f"no event follows from {command}"
        for event in events:
            headers, body = seal(Ref("p", "kind", "id"), len(lines) + 1, GENESIS, event, Context(actor="a"))
            headers = {name: headers[name] for name in ("ce-type", TYPE_VERSION) if name in headers}
            lines.append({"headers": headers, "body": body.decode()})
            state = evolve(state, event)
    return lines, state


def write() -> None:
    for name, ((decide, evolve), commands) in STORIES.items():
        path = HERE / f"{name}.jsonl"
        if not path.exists():
            lines, state = told(decide, evolve, commands)
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            kept = STATES[name.split("-")[0]].dump_json(state, indent=2)
            path.with_suffix(".state.json").write_text(kept.decode() + "\n")
            print("wrote", path.name, f"and its state: append both to SHA256SUMS (sha256sum {name}.* >> SHA256SUMS)")


if __name__ == "__main__":
    write()
