"""The stories behind the golden files: `python -m tests.history.stories` writes those that have no file yet.

A story that has a file is never edited: a new event type, or a new shape of one, gets a new story at the end.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from domain import idempotency, image, node, project, tag, vm
from domain.base import Event, ReferenceChecked, Resources, Sealed
from domain.contract import Fetch, Firmware, Power, SeedMedium
from domain.idempotency import OperationKeyed
from domain.image import Image
from domain.named import Named
from domain.node import Node
from domain.project import ChangeProject, CreateProject, DeleteProject
from domain.tag import CreateTag, DeleteTag, RenameTag
from domain.vm import (
    AbandonVm,
    ChangeVm,
    CloseConsole,
    Considered,
    Console,
    DeferVm,
    DeleteVm,
    DropVm,
    HostKey,
    Notice,
    OpenConsole,
    PauseVm,
    RebuildVm,
    RecordGuestReady,
    ResizeVm,
    RestartByPolicy,
    RestartVm,
    ResumeVm,
    RetryVm,
    ScheduleVm,
    StartVm,
    StopVm,
    SuspendVm,
    TagVm,
)
from eventstore.envelope import GENESIS, Context, Ref, seal
from eventstore.upcast import TYPE_VERSION
from tests.domain import test_image as images
from tests.domain import test_node as nodes
from tests.domain import test_project as projects
from tests.domain.lives import (
    ADDRESSED,
    FAILED,
    ID,
    RUNNING,
    SCHEDULED,
    STOPPING,
    ask,
    broken,
    create,
    expire,
    forget,
    lose,
    report,
    stalled,
)
from tests.domain.story import at, uid

HERE = Path(__file__).parent

FULL = (Considered(node="n1", reason="is cordoned"), Considered(node="n2", reason="1024 MiB asked, 0 free"))
KEY = HostKey(type="ssh-ed25519", key="AAAAC3NzaC1lZDI1NTE5AAAAIA==", fingerprint="SHA256:3f1eDQ")
SECRET = Sealed(key=ID, nonce="AAECAwQFBgcICQoL", ciphertext="c2VjcmV0IGFuZCBtYWM=", size=14)

RICH = [
    create(region="north", tags=("web", "db"), ssh_keys=("ssh-ed25519 AAAA é",), user_data=SECRET, name="web-1"),
    DeferVm(vm=ID, at=at(1), considered=FULL),
    ScheduleVm(vm=ID, at=at(2), node="n1", considered=(Considered(node="n1"), FULL[1])),
    report(Power.ABSENT, 1, step="image", seconds=3),
    report(Power.ON, 2, boots=1, seconds=4),
    report(Power.ON, 3, boots=1, seconds=5, addresses=("192.0.2.7", "2001:db8::7")),
    RecordGuestReady(vm=ID, at=at(6), hostname="web-1", host_keys=(KEY,)),
    ask(TagVm, 11, tags=("db",)),
    ask(RestartVm, 12, grace_seconds=1.5),
    report(Power.ON, 4, boots=2, seconds=110, addresses=("192.0.2.8",)),
    ask(StopVm, 13),
    report(Power.OFF, 5, seconds=200),
    ask(StartVm, 14),
    lose(),
    report(Power.ON, 6, boots=3, seconds=300),
    RecordGuestReady(vm=ID, at=at(301)),
    ask(StopVm, 15, force=True),
]

Decide = Callable[[Any, Any], Sequence[Event]]
Evolve = Callable[[Any, Event], Any]

VM: tuple[Decide, Evolve] = (vm.decide, vm.evolve)
NODE: tuple[Decide, Evolve] = (node.decide, node.evolve)
IMAGE: tuple[Decide, Evolve] = (image.decide, image.evolve)
PROJECT: tuple[Decide, Evolve] = (project.decide, project.evolve)
TAG: tuple[Decide, Evolve] = (tag.decide, tag.evolve)


def checked(state: Any, command: Any) -> Sequence[Event]:
    """What a command leads to, and what the log adds to it where it is built on another aggregate."""
    return [*tag.decide(state, command), ReferenceChecked(project="p", kind="project", id="p", position=7)]


CHECKED: tuple[Decide, Evolve] = (checked, tag.evolve)
KEY_USED: tuple[Decide, Evolve] = (lambda state, event: [event], idempotency.evolve)

#: By file name, which begins with the aggregate's kind.
STORIES: dict[str, tuple[tuple[Decide, Evolve], list[Any]]] = {
    "vm-1-rich": (VM, RICH),
    "vm-2-deleted": (VM, [*RUNNING, ask(DeleteVm, 13), report(Power.ABSENT, 2)]),
    "vm-3-failed": (VM, [*FAILED, ask(StartVm, 15), expire(15)]),
    "vm-4-dropped": (VM, [create(), DropVm(vm=ID, at=at(1), code="image_not_found", detail="image base was deleted")]),
    "vm-5-crashed": (VM, [*RUNNING, report(Power.OFF, 2, cause="crashed")]),
    "vm-6-missing": (VM, [*RUNNING, report(Power.ABSENT, 2)]),
    "vm-7-delete-late": (VM, [*SCHEDULED, ask(DeleteVm, 13), expire(13)]),
    "vm-8-suspended": (
        VM,
        [
            *RUNNING,
            ask(PauseVm, 11),
            report(Power.PAUSED, 2, boots=1, seconds=110),
            ask(ResumeVm, 12),
            report(Power.ON, 3, boots=1, seconds=120, addresses=("192.0.2.9",)),
            stalled(4, seconds=130),
            ask(ResumeVm, 13),
            report(Power.ON, 5, boots=1, seconds=140),
            ask(SuspendVm, 14),
            report(Power.SUSPENDED, 6, seconds=150),
            lose(),
            report(Power.SUSPENDED, 7, seconds=160),
        ],
    ),
    "vm-9-changed": (
        VM,
        [
            create(labels={"team": "blue", "env/stage": ""}, protected=True),
            ask(ChangeVm, 11, name="db-1", tags=("db",), labels={"team": "grün"}),
            ask(ChangeVm, 12, labels={}, protected=False),
        ],
    ),
    "vm-10-abandoned": (VM, [*SCHEDULED, ask(AbandonVm, 11), ask(RetryVm, 12), ask(AbandonVm, 13)]),
    "vm-11-retried": (
        VM,
        [
            *[*STOPPING, broken(2, seconds=120), ask(RetryVm, 12, at=at(130)), report(Power.OFF, 3, seconds=140)],
            *[ask(DeleteVm, 13, at=at(150)), broken(4, seconds=160), ask(RetryVm, 14, at=at(170))],
        ],
    ),
    "vm-12-forgotten": (VM, [*RUNNING, lose(), forget(11), report(Power.ABSENT, 9, epoch=2, seconds=9000)]),
    "vm-13-resized": (
        VM,
        [
            *RUNNING,
            ask(ResizeVm, 11, vcpus=2, disk_gib=8),
            ask(RestartVm, 12),
            report(Power.ON, 2, boots=2, seconds=200, size=Resources(vcpus=2, memory_mib=512, disk_gib=8)),
        ],
    ),
    "vm-14-rebuilt": (
        VM,
        [
            *RUNNING,
            ask(RebuildVm, 11, image="debian-13", ssh_keys=("ssh-ed25519 AAAA",), user_data=SECRET),
            report(Power.ON, 2, boots=2, seconds=200),
        ],
    ),
    "vm-15-restarted": (
        VM,
        [
            *[create(restart_policy="on-failure"), ScheduleVm(vm=ID, at=at(1), node="n1")],
            report(Power.ON, 1, boots=1),
            ask(ChangeVm, 11, restart_policy="always"),
            report(Power.OFF, 2, cause="crashed", seconds=200),
            RestartByPolicy(vm=ID, operation=uid(12), at=at(201)),
            report(Power.ON, 3, boots=2, seconds=210),
            report(Power.OFF, 4, cause="guest", seconds=220),
        ],
    ),
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
    "vm-17-full-disk": (
        VM,
        [
            *SCHEDULED,
            broken(1, code="disk_full", seconds=30),
            RestartByPolicy(vm=ID, operation=uid(30), at=at(35)),
            broken(2, code="disk_full", seconds=40),
            RestartByPolicy(vm=ID, operation=uid(31), at=at(50)),
            report(Power.ON, 3, boots=3, seconds=60),
        ],
    ),
    "vm-18-forced": (VM, [*STOPPING, report(Power.OFF, 2, seconds=200, forced=True)]),
    "vm-19-noticed": (
        VM,
        [
            create(user_data=SECRET, notices=(Notice(code="user_data_unknown", detail="cloud-init ignores it"),)),
            *RUNNING[1:],
            ask(
                RebuildVm, 11, image="base", user_data=SECRET, notices=(Notice(code="user_data_malformed", detail="x"),)
            ),
        ],
    ),
    "project-4-described": (
        PROJECT,
        [
            projects.ask(CreateProject, 10, name="Shop", description="all of it"),
            projects.ask(ChangeProject, 11, description=""),
        ],
    ),
    "vm-20-described": (VM, [create(description="a shop"), ask(ChangeVm, 11, description="")]),
    "vm-21-mac": (VM, [create(), ScheduleVm(vm=ID, at=at(1), node="n1", mac="52:54:00:00:00:07")]),
    "vm-22-boots": (
        VM,
        [
            *SCHEDULED,
            report(Power.ON, 1, boots=1, seconds=3, host_boot="a"),
            RecordGuestReady(vm=ID, at=at(60), hostname="web", host_keys=(KEY,), boots=1, boot="b-1"),
            report(Power.ON, 2, boots=1, seconds=70, host_boot="a", resets=1),
            RecordGuestReady(vm=ID, at=at(90), hostname="web", host_keys=(KEY,), boots=1, boot="b-2"),
            RecordGuestReady(vm=ID, at=at(190), hostname="web", host_keys=(KEY,), boots=1, boot="b-3"),
            report(Power.ON, 3, boots=1, seconds=300, host_boot="c"),
        ],
    ),
    "vm-23-forgotten-folder": (
        VM,
        [
            *RUNNING,
            lose(),
            forget(11, folder="f1"),
            report(Power.ABSENT, 9, epoch=2, lease=3, seconds=9000, folder="f1"),
        ],
    ),
    "vm-24-consoles": (
        VM,
        [
            *RUNNING,
            OpenConsole(vm=ID, at=at(300), session="0" * 31 + "1", console=Console.SERIAL),
            OpenConsole(vm=ID, at=at(301), session="0" * 31 + "2", console=Console.SERIAL, force=True),
            CloseConsole(
                vm=ID,
                at=at(302),
                session="0" * 31 + "1",
                console=Console.SERIAL,
                seconds=2.25,
                why="ada has taken over",
            ),
            OpenConsole(vm=ID, at=at(303), session="0" * 31 + "3", console=Console.VNC),
            CloseConsole(vm=ID, at=at(304), session="0" * 31 + "3", console=Console.VNC, seconds=1),
        ],
    ),
    "vm-25-watchdog": (
        VM,
        [
            *[create(watchdog="reset"), ScheduleVm(vm=ID, at=at(1), node="n1")],
            report(Power.ON, 1, boots=1),
            report(Power.ON, 2, boots=1, seconds=70, resets=2, watchdog_resets=1),
            ask(ChangeVm, 11, watchdog="poweroff"),
            report(Power.OFF, 3, cause="watchdog", seconds=200),
        ],
    ),
    "vm-26-address-sources": (VM, ADDRESSED),
    "operation-1": (KEY_USED, [OperationKeyed(at=at(0), operation_id=uid(10), kind="tag", resource="web")]),
    "image-7-fetched-from-its-source": (IMAGE, [images.register(fetch=Fetch.SOURCE), images.ACCEPT]),
}

EVOLVE: dict[str, Evolve] = {
    "vm": vm.evolve,
    "node": node.evolve,
    "image": image.evolve,
    "project": project.evolve,
    "tag": tag.evolve,
    "operation": idempotency.evolve,
}
STATES: dict[str, Any] = {
    "vm": vm.Vm,
    "node": Node,
    "image": Image,
    "project": Named,
    "tag": Named,
    "operation": idempotency.Key,
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
            path.with_suffix(".state.json").write_text(state.model_dump_json(indent=2) + "\n")
            print("wrote", path.name, "and its state: add both to SHA256SUMS (sha256sum *.json *.jsonl)")


if __name__ == "__main__":
    write()
