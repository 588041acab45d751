"""`nebula keys`, as a shell would call it, on a real log."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import TypeAdapter

from cli.commands import keys as key_commands
from domain.contract.node import Challenge
from domain.project import ProjectCreated
from eventstore.documents import Documents
from eventstore.log import keyring
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, EventStore, Tip
from runtime import subjects
from runtime.node_keys import SIZE, WANTED, NodeKeys, derived, finish, node_keys, read_key, read_root, rotate, valid
from runtime.tasks.patience import CannotRun
from tests.event_keys import KEY, put_keys
from tests.integrity import commands
from tests.integrity.commands import Ran
from tests.integrity.logs import CONTEXT, Log, running

APP = commands.nebula(key_commands.register)

ROOT = NodeKeys(b"r" * SIZE)


Nebula = Callable[..., Awaitable[Ran]]


@pytest.fixture
def nebula(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Nebula:
    """Runs a command on a home (by default the one of the test) to its end."""

    async def run(*arguments: object, log: Log | None = None) -> Ran:
        monkeypatch.setenv("NEBULA_NATS_URL", log.server.url if log else "nats://127.0.0.1:1")
        monkeypatch.setenv("NEBULA_HOME", str(tmp_path))
        return await commands.ran(APP, capsys, "--output", "json", "keys", *arguments)

    return run


async def append(log: Log, home: Path) -> int:
    """Append one event as handlers with this home do; its position."""
    id_ = f"p-{uuid4().hex[:8]}"
    event = ProjectCreated(at=datetime.now(UTC), operation="o", fingerprint="f", project=id_, name="P")
    store = EventStore(log.nc, keyring.Keyring(home / "event.keys"))
    [stored] = await store.append([Change(Tip(Ref(id_, "project", id_)), [event])], CONTEXT)
    return stored.position


async def faults(log: Log, home: Path) -> dict[int, str]:
    read = await EventStore(log.nc, keyring.Keyring(home / "event.keys")).read(0)
    return {each.position: fault.code for each in read if (fault := each.fault()) is not None}


async def test_keys_are_rotated_and_retired(nebula: Nebula, tmp_path: Path) -> None:
    async with running() as log:
        put_keys(tmp_path, since=0)
        first = await append(log, tmp_path)
        prepared = (await nebula("rotate", "--prepare")).json["keys"]
        assert [key["use"] for key in prepared] == ["verifies", "signs"] and prepared[1]["id"] == KEY.id
        assert (await nebula("rotate", "--prepare")).json["keys"] == prepared
        rotated = (await nebula("rotate")).json["keys"]
        assert [key["id"] for key in rotated] == [key["id"] for key in prepared]
        assert [key["use"] for key in rotated] == ["signs", "verifies"]
        second = await append(log, tmp_path)
        assert await faults(log, tmp_path) == {}
        retired = await nebula("retire", KEY.id, log=log)
        assert [key["until"] for key in retired.json["keys"]] == [None, second]
        assert await faults(log, tmp_path) == {}
        assert (await nebula("retire", KEY.id, "--at", first - 1)).status == 0
        assert await faults(log, tmp_path) == {first: "forged"}
        refused = await nebula("retire", rotated[0]["id"], "--at", 1)
        assert refused.status != 0 and "rotate first" in refused.error
        assert "has no key" in (await nebula("retire", "00000000", "--at", 1)).error


async def test_a_list_shows_no_key(nebula: Nebula, tmp_path: Path) -> None:
    path = put_keys(tmp_path, since=7)
    ran = await nebula("list")
    assert ran.json == {
        "log": subjects.EVENTS,
        "since": 7,
        "keys": [{"id": KEY.id, "use": "signs", "until": None}],
    }
    assert json.loads(path.read_text())["keys"][0]["key"] not in ran.out


@pytest.mark.parametrize("command", [["list"], ["rotate"], ["rotate", "--prepare"], ["retire", KEY.id, "--at", "1"]])
@pytest.mark.parametrize("content", [None, "damaged"])
async def test_without_a_good_file_nothing_is_written(
    nebula: Nebula, tmp_path: Path, command: list[str], content: str | None
) -> None:
    path = tmp_path / "event.keys"
    if content is not None:
        path.write_text(content)
    ran = await nebula(*command)
    assert ran.status != 0 and str(path) in ran.error
    assert path.exists() is (content is not None)


async def test_a_lost_file_is_begun_again(nebula: Nebula, tmp_path: Path) -> None:
    async with running() as log:
        put_keys(tmp_path, since=0)
        there = await nebula("begin", log=log)
        assert there.status != 0 and "exists" in there.error
        last = await append(log, tmp_path)
        (tmp_path / "event.keys").unlink()
        assert (await nebula("begin", log=log)).json["since"] == last
        assert (tmp_path / "event.keys").stat().st_mode & 0o777 == 0o600
        assert await faults(log, tmp_path) == {}


# ── keys of nodes ───────────────────────────────────────────────────────────────────────────────────────────────────


def put_root(home: Path) -> Path:
    path = home / "node.keys"
    path.write_text(ROOT.root.hex() + "\n")
    return path


async def test_the_key_of_one_node(nebula: Nebula, tmp_path: Path) -> None:
    put_root(tmp_path)
    file = tmp_path / "given.key"
    ran = await nebula("node", "n1", file)
    assert (ran.status, read_key(file)) == (0, ROOT.of("n1"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert ROOT.of("n1").hex() not in ran.out
    for name in ("", "n1.x", "n1\n", "N1", "*"):
        assert (await nebula("node", name, tmp_path / "none")).status != 0
    assert not (tmp_path / "none").exists()


async def test_a_missing_root_is_not_made(nebula: Nebula, tmp_path: Path) -> None:
    """A command on the wrong host makes no keys that nobody uses."""
    for command in (["node", "n1", tmp_path / "n1.key"], ["rotate-nodes"]):
        ran = await nebula(*command)
        assert ran.status != 0 and "there is no file" in ran.error
    assert not list(tmp_path.glob("n*"))


async def test_the_keys_of_nodes_are_replaced_in_two_steps(nebula: Nebula, tmp_path: Path) -> None:
    async with running() as log:
        path = put_root(tmp_path)
        assert (await nebula("rotate-nodes")).status == 0
        both = read_root(path)
        assert both.earlier == ROOT.root != both.root
        assert path.stat().st_mode & 0o777 == 0o600
        again = await nebula("rotate-nodes")
        assert again.status != 0 and "finish that first" in again.error
        subject, body, documents = subjects.wanted("n1", "vm", "v"), b"{}", Documents(log.nc, subjects.WANTED)
        position = await documents.put(subject, body, last=0, mac=ROOT.mac("n1", WANTED, subject, body))
        early = await nebula("rotate-nodes", "--finish", log=log)
        assert early.status != 0 and "1 documents are not signed" in early.error
        assert read_root(path) == both
        await documents.put(subject, body, last=position, mac=both.mac("n1", WANTED, subject, body))
        assert (await nebula("rotate-nodes", "--finish", log=log)).status == 0
        assert read_root(path) == NodeKeys(both.root)


def test_while_keys_are_replaced_both_count(tmp_path: Path) -> None:
    path = put_root(tmp_path)
    both = rotate(path)
    mac = both.mac("n1", WANTED, "s", b"b")
    for each in (ROOT.root, both.root):
        assert valid(derived(each, "n1"), WANTED, "s", b"b", mac)
        assert both.valid("n1", WANTED, "s", b"b", NodeKeys(each).mac("n1", WANTED, "s", b"b"))
        assert not valid(derived(each, "n2"), WANTED, "s", b"b", mac)
        assert not valid(derived(each, "n1"), WANTED, "s", b"c", mac)
    assert both.is_current("n1", WANTED, "s", b"b", mac)
    assert not both.is_current("n1", WANTED, "s", b"b", ROOT.mac("n1", WANTED, "s", b"b"))
    challenge = both.challenge("n1", "heartbeat", 1000)
    assert TypeAdapter(Challenge).validate_python(challenge) == challenge
    assert both.age("n1", "heartbeat", challenge, 1005) == 5
    tags = mac.split(",")
    for forged in ("", ",", ",,", f"0,0,{mac}", f"{tags[0]}{tags[1]}", "é", f" {mac.replace(',', ', ')}"):
        assert not both.is_current("n1", WANTED, "s", b"b", forged)
        assert not valid(derived(ROOT.root, "n1"), WANTED, "s", b"b", forged)
    after = finish(path)
    assert after == node_keys(path) == NodeKeys(both.root)
    assert after.valid("n1", WANTED, "s", b"b", mac)
    assert not after.valid("n1", WANTED, "s", b"b", ROOT.mac("n1", WANTED, "s", b"b"))


def test_a_file_with_too_many_keys_is_refused(tmp_path: Path) -> None:
    path = put_root(tmp_path)
    rotate(path)
    with pytest.raises(CannotRun, match="more than one key"):
        read_key(path)
    path.write_text(path.read_text() + "ab" * SIZE)
    with pytest.raises(CannotRun, match="more than 2 roots"):
        node_keys(path)
