"""Whoever has stolen the credential of a node, against a real platform: it is worth that node's VMs and no more."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from bench import homes
from node_daemon.membership.credentials import Files, applied
from runtime import subjects
from runtime.bus import bus
from runtime.bus.accounts.table import API, IMPORTED_API, MAINTENANCE, REVOKE, STREAMS
from runtime.settings import Common, NodeSettings
from runtime.tasks.patience import CannotRun
from tests.cli.listening import Listening, create, joined_node, listening_platform, register_blank, status_of, until

#: The victim is the platform's own node, the thief has what a host got when it joined as the other one.
VICTIM, STOLEN = "n1", "n8"


@dataclass
class Thief:
    """A connection with the stolen credential, and what it has heard without being asked."""

    nc: bus.Connection
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    async def note(self, msg: Msg) -> None:
        self.heard.append((msg.subject, msg.data))

    async def listens(self) -> None:
        for subject in (">", "nebula.>", f"nebula.nodes.{VICTIM}.>", "_INBOX.>", "$JS.>", "$SYS.>"):
            await self.nc.subscribe(subject, cb=self.note)
        await self.nc.flush()


@pytest.fixture(scope="module")
def listening() -> Iterator[Listening]:
    with listening_platform() as made:
        register_blank(made)
        yield made


@pytest.fixture
def host(listening: Listening) -> Iterator[Path]:
    """The home of a host that joined, with a daemon that works."""
    with homes.home("joined") as home:
        ran = listening.nebula(*listening.token(STOLEN)["command"].split()[1:], home=home)
        assert ran.returncode == 0, ran.stderr
        with joined_node(listening, home):
            until(lambda: status_of(listening, STOLEN) == "ready", "it is ready")
            yield home


def stolen(host: Path) -> NodeSettings:
    return applied(NodeSettings(home=host))


@pytest.fixture
async def thief(host: Path) -> AsyncIterator[Thief]:
    found = Thief(await bus.connect(stolen(host), "thief"))
    yield found
    await found.nc.close()


@pytest.fixture
async def operator(listening: Listening) -> AsyncIterator[bus.Connection]:
    url = (listening.home / "nats.url").read_text()
    file, authority = listening.home / "bus" / f"{MAINTENANCE}.creds", listening.home / "tls" / "ca.pem"
    nc = await bus.connect(Common(home=listening.home, nats_url=url, nats_creds=file, nats_ca=authority), "operator")
    yield nc
    await nc.close()


async def last(operator: bus.Connection, stream: str) -> int:
    found: int = (await operator.jetstream().stream_info(stream)).state.last_seq
    return found


async def document(operator: bus.Connection, vm: str) -> bytes:
    found = await operator.jetstream().get_last_msg(subjects.WANTED, subjects.wanted(VICTIM, "vm", vm))
    assert found.data is not None
    return found.data


def targets(vm: str) -> list[str]:
    """Where another node, the handlers or an operator may publish."""
    calls = [f"STREAM.{verb}.{stream}" for verb in ("DELETE", "PURGE", "UPDATE", "MSG.DELETE") for stream in STREAMS]
    calls += [f"CONSUMER.CREATE.{stream}.thief" for stream in STREAMS]
    return [
        subjects.event("default", "vm", vm),
        *(subjects.command("default", "vm", verb) for verb in ("delete", "stop")),
        subjects.wanted(VICTIM, "vm", vm),
        subjects.report(VICTIM, "vm", vm),
        *(of(VICTIM) for of in (subjects.heartbeat, subjects.register, subjects.leave, subjects.renew, subjects.lease)),
        subjects.vault_key(vm),
        subjects.JOIN,
        REVOKE,
        *(f"{prefix}.{call}" for prefix in (API, IMPORTED_API) for call in calls),
    ]


async def test_it_changes_nothing_of_another_node(listening: Listening, thief: Thief, operator: bus.Connection) -> None:
    vm = await asyncio.to_thread(create, listening, "here-1", "default")

    def addressed() -> bool:
        return bool(listening.json("vm", "show", "here-1")["addresses"])

    await asyncio.to_thread(until, addressed, "its address is known, which is an event")
    wanted = await document(operator, vm)
    report = (await operator.jetstream().get_last_msg(subjects.REPORTS, subjects.report(VICTIM, "vm", vm))).data
    assert report is not None
    ends = {stream: await last(operator, stream) for stream in (subjects.EVENTS, subjects.WANTED)}
    off = json.dumps({**json.loads(wanted), "desired": "absent", "generation": 10**6, "epoch": 10**6}).encode()
    replies = ("", subjects.wanted(VICTIM, "vm", vm), subjects.event("default", "vm", vm))
    for subject in targets(vm):
        for reply in replies:
            for body in (off, report, b"{}"):
                await thief.nc.publish(subject, body, reply=reply)
    # Its own report has a document for the other node as its body, and is read with that node's subject as the reply.
    mine = subjects.report(STOLEN, "vm", vm)
    await thief.nc.publish(mine, off)
    for reply in replies[1:]:
        for prefix in (API, IMPORTED_API):
            read = f"{prefix}.DIRECT.GET.{subjects.REPORTS}"
            await thief.nc.publish(read, json.dumps({"last_by_subj": mine}).encode(), reply=reply)
            await thief.nc.publish(f"{read}.{mine}", b"", reply=reply)
            lease = f"{prefix}.DIRECT.GET.{subjects.LEASES}.{subjects.lease(STOLEN)}"
            await thief.nc.publish(lease, b"", reply=reply)
    await thief.nc.flush()
    await asyncio.sleep(1)
    assert await document(operator, vm) == wanted
    assert await last(operator, subjects.WANTED) == ends[subjects.WANTED]
    new = range(ends[subjects.EVENTS] + 1, await last(operator, subjects.EVENTS) + 1)
    said = [(await operator.jetstream().get_msg(subjects.EVENTS, position)).subject for position in new]
    # On a busy machine a node may miss its heartbeats meanwhile, which is an event of that node.
    of_nodes = [subjects.event(subjects.SYSTEM, "node", node) for node in (VICTIM, STOLEN)]
    assert [subject for subject in said if subject not in of_nodes] == []
    await asyncio.to_thread(until, lambda: status_of(listening, VICTIM) == "ready", "the node works, maybe again")
    assert (await asyncio.to_thread(listening.json, "vm", "show", "here-1"))["phase"] == "running"


async def test_it_hears_nothing_of_another_node(listening: Listening, thief: Thief) -> None:
    await thief.listens()
    vm = await asyncio.to_thread(create, listening, "here-2", "default")
    ran = await asyncio.to_thread(listening.nebula, "vm", "stop", "here-2", "--force")
    assert ran.returncode == 0, ran.stderr
    await thief.nc.flush()
    assert [subject for subject, _ in thief.heard if not subject.startswith(f"nebula.nodes.{STOLEN}.")] == []
    assert not any(vm.encode() in body for _, body in thief.heard)


async def test_it_reads_nothing_of_another_node(listening: Listening, thief: Thief) -> None:
    """Not even how many VMs there are."""
    vm = await asyncio.to_thread(create, listening, "here-3", "default")
    own = f"{IMPORTED_API}.DIRECT.GET.{subjects.LEASES}.{subjects.lease(STOLEN)}"
    assert (await thief.nc.request(own, b"", timeout=10)).data, "what it may read, it gets"
    answers: list[Any] = []
    for stream in STREAMS:
        for call in (
            *(f"STREAM.INFO.{stream}", f"STREAM.MSG.GET.{stream}", f"DIRECT.GET.{stream}", "STREAM.NAMES", "INFO"),
            *(f"DIRECT.GET.{stream}.{subjects.wanted(VICTIM, 'vm', vm)}", f"CONSUMER.NAMES.{stream}"),
            f"CONSUMER.MSG.NEXT.{stream}.{subjects.wanted_consumer(VICTIM)}",
            f"DIRECT.GET.{stream}.{subjects.lease(VICTIM)}",
        ):
            for body in ({"seq": 1}, {"last_by_subj": subjects.wanted(VICTIM, "vm", vm)}, {"subjects_filter": ">"}):
                for prefix in (API, IMPORTED_API):
                    ask = partial(thief.nc.request, f"{prefix}.{call}", json.dumps(body).encode(), timeout=0.02)
                    with contextlib.suppress(NatsError, TimeoutError):
                        answers.append((await ask()).data)
    assert answers == []


async def test_it_is_seen_in_the_audit(listening: Listening, thief: Thief) -> None:
    await thief.listens()
    for subject in (subjects.report(VICTIM, "vm", "seen"), f"{API}.STREAM.DELETE.{subjects.EVENTS}"):
        await thief.nc.publish(subject, b"{}")
    await thief.nc.flush()
    tried = {("PUBLISH", subjects.report(VICTIM, "vm", "seen")), ("SUBSCRIBE", f"nebula.nodes.{VICTIM}.>")}

    def seen() -> bool:
        rows = [row for row in listening.json("refusals")["items"] if row["actor"] == f"node:{STOLEN}"]
        return tried <= {(row["method"], row["path"]) for row in rows if row["code"] == "bus_permission"}

    await asyncio.to_thread(until, seen, "auditors see what it has tried")


async def test_it_ends_within_seconds(listening: Listening, host: Path, thief: Thief) -> None:
    ran = await asyncio.to_thread(listening.nebula, "node", "revoke", STOLEN)
    assert ran.returncode == 0, ran.stderr
    with pytest.raises(CannotRun, match="revoked"):
        await asyncio.wait_for(thief.nc.until_ended(), 20)
    with pytest.raises(CannotRun, match="revoked"):
        await bus.connect(stolen(host), "thief")
    rows = (await asyncio.to_thread(listening.json, "node", "enrollments"))["items"]
    assert {row["id"]: row["status"] for row in rows}[STOLEN] == "revoked"
    report = await asyncio.to_thread(listening.json, "verify", "log")
    assert report["findings"] == [], report
    assert Files(host).creds.exists(), "the thief has it still"
