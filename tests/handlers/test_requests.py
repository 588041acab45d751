"""What one request is refused for, and what it leaves; on one write side for all, where nothing is ever lost."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator

import pytest

from domain import image
from domain.contract import Desired, Power
from domain.kinds import KINDS
from handlers.commands.routes import ROUTES
from runtime import subjects
from tests.handlers.platform import OPERATOR, WriteSide, raw_disk, write_side
from tests.handlers.test_handlers import wants
from tests.waiting import eventually


@pytest.fixture(scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WriteSide]:
    async with write_side(tmp_path_factory.mktemp("requests"), NEBULA_NODE_TIMEOUT="3600") as made:
        await made.start()
        await made.cloud()
        await made.node("n1")
        await made.heartbeat("n1")
        yield made


async def test_the_same_request_is_one_vm_for_ever(cloud: WriteSide) -> None:
    vm, operation = str(uuid.uuid4()), str(uuid.uuid4())
    args = cloud.vm_args(vm, user_data="#cloud-config\n")
    first = await cloud.ok("default", "vm", "create", args, operation=operation)
    again = await cloud.ok("default", "vm", "create", args, operation=operation)
    assert (first["replayed"], again["replayed"]) == (False, True)
    other = await cloud.ask("default", "vm", "create", args, operation=operation, fingerprint="other")
    assert other["problem"]["code"] == "idempotency_key_reused"
    assert other["problem"]["status"] == 422
    doc = await eventually(lambda: cloud.wanted(vm), "wanted document")
    await cloud.ok("default", "vm", "delete", {"vm": vm})
    tombstone = await eventually(lambda: wants(cloud, vm, Desired.ABSENT), "tombstone")
    await cloud.report(tombstone, Power.ABSENT)
    await eventually(lambda: cloud.has("default", "vm", vm, "VmDeleted"), "vm deleted")
    late = await cloud.ok("default", "vm", "create", args, operation=operation)
    assert late["replayed"], "a retry after the deletion does not make a second VM"
    assert doc.boots == 1


async def test_an_id_is_taken_in_all_projects(cloud: WriteSide) -> None:
    vm = await cloud.create()
    await cloud.ok("other", "project", "create", {"project": "other", "name": "Other"})
    answer = await cloud.ask("other", "vm", "create", cloud.vm_args(vm))
    assert (answer["problem"]["code"], answer["problem"]["field"]) == ("vm_exists", "id")
    assert await cloud.events("other", "vm", vm) == []


async def test_user_data_is_sealed_in_the_log(cloud: WriteSide) -> None:
    vm = await cloud.create(user_data="password: hunter2")
    [requested, *_] = await cloud.events("default", "vm", vm)
    assert b"hunter2" not in requested.body
    assert b"ciphertext" in requested.body


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"image": "nope"}, "image_not_found", "image"),
        ({"tags": ["nope"]}, "tag_not_found", "tags"),
        ({"name": "No Hostname!"}, "invalid_request", "name"),
        ({"spec": {"vcpus": 0, "memory_mib": 512, "disk_gib": 4}}, "invalid_request", "spec.vcpus"),
        ({"spec": {"vcpus": 1, "memory_mib": -1, "disk_gib": 4}}, "invalid_request", "spec.memory_mib"),
        ({"spec": {"vcpus": 1, "memory_mib": 512, "disk_gib": 10**9}}, "invalid_request", "spec.disk_gib"),
        ({"spec": {"vcpus": 1, "memory_mib": 4097, "disk_gib": 4}}, "too_large", "memory_mib"),
        ({"spec": {"vcpus": 200, "memory_mib": 512, "disk_gib": 4}}, "too_large", "vcpus"),
        ({"user_data": "x" * 70_000}, "invalid_user_data", "user_data"),
        ({"user_data": "nul\0"}, "invalid_user_data", "user_data"),
    ],
)
async def test_a_refusal_names_the_field_and_leaves_nothing(
    cloud: WriteSide, change: dict[str, object], code: str, field: str
) -> None:
    vm = str(uuid.uuid4())
    answer = await cloud.ask("default", "vm", "create", {**cloud.vm_args(vm), **change})
    assert (answer["problem"]["code"], answer["problem"]["field"]) == (code, field)
    assert await cloud.events("default", "vm", vm) == []


@pytest.mark.parametrize(
    ("project", "kind", "verb", "args", "right"),
    [
        ("default", "project", "delete", {"project": "elsewhere"}, "elsewhere.project.delete"),
        ("elsewhere", "project", "change", {"project": "default", "name": "Mine"}, "default.project.change"),
        ("default", "tag", "create", {"tag": "spread", "name": "Spread"}, "system.tag.create"),
        ("default", "image", "delete", {"image": "base"}, "system.image.delete"),
        ("default", "node", "cordon", {"node": "n1"}, "system.node.cordon"),
    ],
)
async def test_the_subject_decides_which_project_a_command_reaches(
    cloud: WriteSide, project: str, kind: str, verb: str, args: dict[str, object], right: str
) -> None:
    """Who may only send on subjects of one project cannot change another one, nor what all share."""
    if kind == "project" and project == "default":
        await cloud.ok("elsewhere", "project", "create", {"project": "elsewhere", "name": "Elsewhere"})
    problem = (await cloud.ask(project, kind, verb, args))["problem"]
    assert (problem["status"], problem["field"]) == (422, "project")
    assert f"nebula.commands.{right}" in problem["detail"]
    done = {"ProjectDeletionBegun", "ProjectRenamed", "TagCreated", "ImageDeletionBegun", "NodeCordoned"}
    assert not done & set(await cloud.types(right.split(".", maxsplit=1)[0], kind, str(args[kind])))


async def test_projects_and_tags_are_kept_while_in_use(cloud: WriteSide) -> None:
    await cloud.ok("system", "tag", "create", {"tag": "prod", "name": "Production"})
    vm = await cloud.create(tags=["prod"])
    answer = await cloud.ask("default", "project", "delete", {"project": "default"})
    assert answer["problem"]["code"] == "project_not_empty"
    answer = await cloud.ask("system", "tag", "delete", {"tag": "prod"})
    assert answer["problem"]["code"] == "tag_in_use"
    answer = await cloud.ask("system", "image", "delete", {"image": "base"})
    assert answer["problem"]["code"] == "image_in_use"
    await cloud.ok("default", "vm", "tag", {"vm": vm, "tags": []})
    await cloud.ok("system", "tag", "delete", {"tag": "prod"})


@pytest.mark.parametrize(
    ("body", "sha256", "code", "field"),
    [
        (raw_disk(), "0" * 64, "checksum_mismatch", "sha256"),
        (b"no disk at all" * 100, None, "image_invalid", "source"),
        (b"QFI\xfb\0\0\0\3" + b"\0" * 7 + b"\x70" + b"\0" * 600, None, "image_invalid", "source"),
    ],
)
async def test_an_image_that_lies_is_rejected(
    cloud: WriteSide, body: bytes, sha256: str | None, code: str, field: str
) -> None:
    bad = f"bad-{uuid.uuid4().hex[:8]}"
    path = cloud.home / f"{bad}.img"
    path.write_bytes(body)
    digest = sha256 or hashlib.sha256(body).hexdigest()
    args = {"image": bad, "name": "Bad", "source": str(path), "sha256": digest}
    await cloud.ok("system", "image", "register", args)
    await eventually(lambda: cloud.has("system", "image", bad, "ImageRejected"), "rejected")
    rejected = (await cloud.events("system", "image", bad))[-1].event
    assert isinstance(rejected, image.ImageRejected)
    assert (rejected.code, rejected.field) == (code, field)


#: What no argument of any command is.
ODD = (
    b"5",
    b"NaN",
    b"1e999",
    b"-1" + b"0" * 30,
    b'"\\u0000x"',
    b"[[1]]",
    b'{"a": [1]}',
    b"true",
    b"[" * 90 + b"]" * 90,
)
#: What the command loop itself puts into a command.
OWN = {"at", "operation", "fingerprint", "created_by"}


async def test_arguments_of_any_type_are_judged_and_are_no_bug(cloud: WriteSide) -> None:
    """Each argument of each command in turn, beside others that are good."""
    vm = await cloud.create()
    asked: list[tuple[str, bytes]] = []
    for (kind, verb), route in ROUTES.items():
        good = {**dict.fromkeys(KINDS, "nosuch"), "vm": vm}
        given: dict[str, object] = {kind: good[kind], "name": "x", "source": "/x", "reason": "r"}
        if route.lookup.behind:
            given = cloud.vm_args(str(uuid.uuid4()))
        for name in [*(set(route.command.model_fields) - OWN), "tags", "spec", "user_data", "user_data_base64"]:
            whole = json.dumps({name: "@", **{key: said for key, said in given.items() if key != name}}).encode()
            subject = subjects.command(route.kind.project_of("default", good[kind]), kind, verb)
            asked += [(subject, whole.replace(b'"@"', odd)) for odd in ODD]

    async def answer(subject: str, args: bytes) -> None:
        context = {
            "actor": "tester",
            "grants": OPERATOR,
            "operation": str(uuid.uuid4()),
            "fingerprint": "f",
        }
        body = b'{"args": %b, "context": %b}' % (args, json.dumps(context).encode())
        said = json.loads((await cloud.nc.request(subject, body, timeout=60)).data)
        assert "ok" in said or 400 <= said["problem"]["status"] < 500, (subject, args, said)

    for start in range(0, len(asked), 100):
        await asyncio.gather(*(answer(*each) for each in asked[start : start + 100]))
