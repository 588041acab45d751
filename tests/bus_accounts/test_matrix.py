"""Each credential with each subject of the table, on a real server. The table is the expectation: new rows join."""

import asyncio
import contextlib
import json
from collections.abc import Iterable
from itertools import count
from typing import Any

import pytest
from nats.errors import Error as NatsError

from runtime import subjects
from runtime.bus.accounts.claims import foreign
from runtime.bus.accounts.table import (
    API,
    GUEST_DATA,
    HANDLERS,
    IMPORTED_API,
    NODE,
    ROLES,
    ROWS,
    STREAMS,
    Account,
    Row,
    calls,
    local,
    stored,
)
from tests.bus_accounts.conftest import NODE_NAMES, Guarded

EVERYTHING = ("maintenance", "system")
NUMBERS = count()


def samples(row: Row) -> list[tuple[str, str | None]]:
    """Subjects that match a row, each with its node."""
    nodes = NODE_NAMES if NODE in row.subject else (None,)
    filled = row.subject.replace("*", "x1").replace(">", "x1.x2")
    return [(filled.replace(NODE, node or ""), node) for node in nodes]


def belongs(credential: str, roles: tuple[str, ...], node: str | None) -> bool:
    role = "node" if credential.startswith("node-") else credential
    if role == GUEST_DATA and node is not None:
        return False  # that of one host may: `test_guests_of_a_node.py`
    return role in roles and (role != "node" or credential == f"node-{node}")


def role_of(credential: str) -> str:
    return "node" if credential.startswith("node-") else credential


def plain(row: Row) -> bool:
    return row.subject.startswith(f"{subjects.PREFIX}.")


def covered(credential: str, subject: str, *, hear: bool) -> bool:
    """Whether any row allows the subject to the credential."""
    return any(
        subject == sample and belongs(credential, row.hear if hear else row.publish, node)
        for row in ROWS
        for sample, node in variants(row, subject)
    )


def variants(row: Row, subject: str) -> list[tuple[str, str | None]]:
    """The subject itself, if the row matches it, with its node."""
    wanted, given = row.subject.split("."), subject.split(".")
    node = None
    if len(wanted) != len(given) and wanted[-1] != ">":
        return []
    for one, other in zip(wanted, given, strict=False):
        if one == ">":
            break
        if NODE in one and other.startswith(one.removesuffix(NODE)):
            node = other.removeprefix(one.removesuffix(NODE))
        elif one not in ("*", other):
            return []
    return [(subject, node)]


async def test_each_credential_publishes_where_the_table_says_and_nowhere_else(guarded: Guarded) -> None:
    tried: dict[bytes, tuple[str, str]] = {}
    for credential, nc in guarded.connections.items():
        for row in filter(plain, ROWS):
            for subject, _ in samples(row):
                body = f"probe {next(NUMBERS)}".encode()
                tried[body] = credential, subject
                await nc.publish(subject, body)
    await guarded.settled()
    heard = {(subject, body) for each in guarded.spies.values() for subject, body in each.heard}
    for body, (credential, subject) in tried.items():
        allowed = covered(credential, subject, hear=False) or credential == "maintenance"
        assert ((subject, body) in heard) == allowed, (credential, subject)


async def test_each_credential_hears_what_the_table_says_and_nothing_else(guarded: Guarded) -> None:
    heard: set[tuple[str, bytes]] = set()

    for credential, nc in guarded.connections.items():

        async def note(msg: Any, credential: str = credential) -> None:
            heard.add((credential, msg.data))

        for subject in {subject for row in filter(plain, ROWS) for subject, _ in samples(row)}:
            await nc.subscribe(subject, cb=note)
        for filter_ in (">", "nebula.>", "_INBOX.>", "$JS.>", "$SYS.>", "_R_.>"):
            if credential not in EVERYTHING:
                await nc.subscribe(filter_, cb=note)
    await guarded.settled()
    tried = {}
    for row in filter(plain, ROWS):
        for subject, _ in samples(row):
            body = f"probe {next(NUMBERS)}".encode()
            tried[body] = row.home, subject
            await guarded.spies[row.home].nc.publish(subject, body)
    await guarded.settled()
    for body, (home, subject) in tried.items():
        for credential in guarded.connections:
            if credential in EVERYTHING or credential == "simulation":
                continue
            allowed = any(
                (row.home is home or home in foreign(row, row.publish)) and belongs(credential, row.hear, node)
                for row in ROWS
                for _, node in variants(row, subject)
            )
            assert ((credential, body) in heard) == allowed, (credential, home, subject)


async def test_what_a_credential_publishes_reaches_all_who_may_hear_it(guarded: Guarded) -> None:
    heard: set[tuple[str, bytes]] = set()
    rows = list(calls())
    for credential, nc in guarded.connections.items():

        async def note(msg: Any, credential: str = credential) -> None:
            heard.add((credential, msg.data))

        for subject in {
            subject for row in rows for subject, node in samples(row) if belongs(credential, row.hear, node)
        }:
            await nc.subscribe(subject, cb=note)
    await guarded.settled()
    expected = set()
    for credential, nc in guarded.connections.items():
        for subject in {
            found for row in rows for found, node in samples(row) if belongs(credential, row.publish, node)
        }:
            body = f"probe {next(NUMBERS)}".encode()
            await nc.publish(subject, body)
            expected |= {
                (other, body)
                for other in guarded.connections
                for row in rows
                for sample, node in samples(row)
                if sample == subject and belongs(other, row.hear, node) and (row.publish or other == credential)
            }
    await guarded.settled()
    assert expected - heard == set()


def hostile(stream: str) -> list[tuple[str, Any]]:
    """Calls of JetStream that read, write or delete what is not the caller's."""
    consumer = {"deliver_policy": "all", "ack_policy": "none"}
    push = {**consumer, "deliver_subject": "nebula.vault.forged"}
    sources = {"name": "STOLEN", "sources": [{"name": stream}]}
    republished = {"name": "SPREAD", "subjects": ["x.>"], "republish": {"src": "x.>", "dest": "nebula.vault.>"}}
    moved = {
        "name": "MOVED",
        "subjects": ["y.*"],
        "subject_transform": {"src": "y.*", "dest": "nebula.vault.{{wildcard(1)}}"},
    }
    pull = {"batch": 1, "no_wait": True}
    return [
        (f"STREAM.DELETE.{stream}", None),
        (f"STREAM.PURGE.{stream}", {}),
        (f"STREAM.UPDATE.{stream}", {"name": stream, "subjects": ["other.>"]}),
        (f"STREAM.MSG.DELETE.{stream}", {"seq": 1}),
        (f"STREAM.MSG.GET.{stream}", {"seq": 1}),
        (f"DIRECT.GET.{stream}", {"seq": 1}),
        (f"DIRECT.GET.{stream}.{subjects.PREFIX}.nodes.n2.wanted.vm.x", None),
        (f"STREAM.INFO.{stream}", {"subjects_filter": ">"}),
        (f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": "_INBOX.x"}),
        (f"STREAM.CREATE.{stream}", {"name": stream, "subjects": ["other.>"]}),
        ("STREAM.CREATE.STOLEN", sources),
        ("STREAM.CREATE.MIRROR", {"name": "MIRROR", "mirror": {"name": stream}}),
        ("STREAM.CREATE.SPREAD", republished),
        ("STREAM.CREATE.MOVED", moved),
        ("STREAM.CREATE.ANY", {"name": "ANY", "subjects": ["nebula.nodes.n2.asks.>"]}),
        ("STREAM.RESTORE.ANY", {"config": {"name": "ANY", "subjects": ["z.>"]}}),
        (f"STREAM.PEER.REMOVE.{stream}", {"peer": "nebula"}),
        (f"STREAM.LEADER.STEPDOWN.{stream}", None),
        ("META.LEADER.STEPDOWN", None),
        ("SERVER.REMOVE", {"peer": "nebula"}),
        ("ACCOUNT.PURGE.CONTROL", None),
        ("STREAM.NAMES", {}),
        ("STREAM.LIST", {}),
        ("INFO", None),
        (f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": consumer}),
        (f"CONSUMER.CREATE.{stream}.mine", {"stream_name": stream, "config": {**push, "name": "mine"}}),
        (f"CONSUMER.CREATE.{stream}.mine.nebula.>", {"stream_name": stream, "config": {**consumer, "name": "mine"}}),
        (f"CONSUMER.DURABLE.CREATE.{stream}.mine", {"stream_name": stream, "config": {**push, "durable_name": "mine"}}),
        (f"CONSUMER.DELETE.{stream}.node-n2", None),
        (f"CONSUMER.RESET.{stream}.node-n2", {"seq": 1}),
        (f"CONSUMER.MSG.NEXT.{stream}.node-n2", pull),
        (f"CONSUMER.MSG.NEXT.{stream}.list-n2", pull),
        (f"CONSUMER.PAUSE.{stream}.node-n2", {"pause_until": "2100-01-01T00:00:00Z"}),
        (f"CONSUMER.UNPIN.{stream}.node-n2", {"group": "x"}),
        (f"CONSUMER.LEADER.STEPDOWN.{stream}.node-n2", None),
        (f"CONSUMER.LIST.{stream}", {}),
        (f"CONSUMER.INFO.{stream}.node-n2", None),
    ]


async def test_each_credential_calls_of_jetstream_what_the_table_says_and_nothing_else(guarded: Guarded) -> None:
    await fill(guarded)
    before = await state(guarded)
    answered: list[tuple[str, str, bytes]] = []
    calls = {call: body for stream in STREAMS for call, body in hostile(stream)}
    for credential, nc in guarded.connections.items():
        if credential in EVERYTHING:
            continue
        for prefix in (API, IMPORTED_API):
            for call, body in calls.items():
                if covered(credential, f"{API}.{call}", hear=False):
                    continue
                inbox = nc.new_inbox()

                async def note(msg: Any, credential: str = credential, call: str = call) -> None:
                    answered.append((credential, call, msg.data))

                await nc.subscribe(inbox, cb=note)
                await nc.publish(f"{prefix}.{call}", b"" if body is None else json.dumps(body).encode(), reply=inbox)
    await guarded.settled()
    await asyncio.sleep(0.3)
    assert answered == []
    assert await state(guarded) == before


#: What servers and their other protocols listen to.
OF_SERVERS = (
    *("$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.HEALTHZ", "$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.LIST"),
    *("$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.USER.INFO", "$SYS.DEBUG.SUBSCRIBERS", "$SYS.REQ.SERVER.PING.CONNZ"),
    *("$SRV.PING", "$SRV.INFO", "$JS.EVENT.ADVISORY.API", "$KV.NEBULA_KEYS.x", "$O.x.C.y", "$MQTT.msgs.x"),
)


async def test_servers_answer_the_system_account_only(guarded: Guarded) -> None:
    for credential, nc in guarded.connections.items():
        if credential in EVERYTHING:
            continue
        for subject in OF_SERVERS:
            with pytest.raises((TimeoutError, NatsError)):
                await nc.request(subject, b"", timeout=0.03)


async def test_nobody_writes_to_the_inboxes_of_others(guarded: Guarded) -> None:
    heard: list[tuple[str, str]] = []
    for credential, nc in guarded.connections.items():

        async def note(msg: Any, credential: str = credential) -> None:
            heard.append((credential, msg.data.decode()))

        await nc.subscribe(f"_INBOX.{credential}.probe", cb=note)
    await guarded.settled()
    for credential, nc in guarded.connections.items():
        if credential not in EVERYTHING:
            for other in guarded.connections:
                await nc.publish(f"_INBOX.{other}.probe", credential.encode())
    await guarded.settled()
    assert heard == []


async def test_a_trace_goes_only_where_its_sender_may_publish(guarded: Guarded) -> None:
    for spied in guarded.spies.values():
        spied.heard.clear()
    for credential, nc in guarded.connections.items():
        if credential in EVERYTHING:
            continue
        own = next(
            sample
            for row in filter(plain, ROWS)
            for sample, node in samples(row)
            if belongs(credential, row.publish, node)
        )
        for target in TARGETS:
            if not covered(credential, target, hear=False):
                await nc.publish(own, b"", headers={"Nats-Trace-Dest": target})
    await guarded.settled()
    heard = [subject for spied in guarded.spies.values() for subject, body in spied.heard if b"server" in body]
    assert heard == []


STORING = {
    "Nats-Rollup": "all",
    "Nats-TTL": "1s",
    "Nats-Schedule": "@at 2030-01-01T00:00:00Z",
    "Nats-Schedule-Target": "nebula.nodes.n2.reports.vm.x",
    "Nats-Marker-Reason": "Purge",
    "Nats-Incr": "+1",
    "Nats-Batch-Id": "b",
    "Nats-Batch-Sequence": "1",
    "Nats-Batch-Commit": "1",
}
"""Headers with which a message can do more to a stream than to be added."""


@pytest.mark.parametrize("header", STORING)
async def test_a_node_s_report_is_only_added(guarded: Guarded, header: str) -> None:
    await fill(guarded)
    await guarded.spies[Account.CONTROL].nc.jetstream().publish("nebula.nodes.n2.reports.vm.x", b"of n2")
    before = await state(guarded)
    with contextlib.suppress(Exception):
        headers = {header: STORING[header], "Nats-Batch-Id": "b"} if "Batch" in header else {header: STORING[header]}
        await guarded.connections["node-n1"].request("nebula.nodes.n1.reports.vm.y", b"x", headers=headers, timeout=0.3)
    await asyncio.sleep(0.2)
    after = await state(guarded)
    stream = guarded.spies[Account.CONTROL].nc.jetstream()
    assert (await stream.get_last_msg(subjects.REPORTS, "nebula.nodes.n2.reports.vm.x")).data == b"of n2"
    assert after[subjects.REPORTS][0] >= before[subjects.REPORTS][0]
    assert {**after, subjects.REPORTS: None} == {**before, subjects.REPORTS: None}


async def test_a_node_reads_its_own_note_only(guarded: Guarded) -> None:
    """The subject of the call names the note; a body that names another one changes nothing."""
    js = guarded.connections["handlers"].jetstream()
    for node in NODE_NAMES:
        await js.publish(f"nebula.nodes.{node}.lease", f"note of {node}".encode())
    nc = guarded.connections["node-n1"]
    answers: list[bytes] = []

    async def note(msg: Any) -> None:
        answers.append(msg.data)

    inbox = nc.new_inbox()
    await nc.subscribe(inbox, cb=note)
    call = f"{IMPORTED_API}.DIRECT.GET.{subjects.LEASES}.nebula.nodes.n1.lease"
    for body in (
        *(
            {},
            {"seq": 2},
            {"last_by_subj": "nebula.nodes.n2.lease"},
            {"seq": 1, "next_by_subj": "nebula.nodes.n2.lease"},
        ),
        *({"multi_last": ["nebula.nodes.*.lease"], "batch": 10}),
        {"seq": 1, "batch": 10, "next_by_subj": ">"},
    ):
        await nc.publish(call, json.dumps(body).encode() if body else b"", reply=inbox)
    await guarded.settled()
    await asyncio.sleep(0.2)
    assert b"note of n1" in answers and b"note of n2" not in b"".join(answers)


async def test_handlers_neither_delete_nor_purge_what_is_kept(guarded: Guarded) -> None:
    await fill(guarded)
    before = await state(guarded)
    nc = guarded.connections["handlers"]
    for stream in (subjects.EVENTS, subjects.CHECKPOINTS, subjects.VAULT):
        for call in ("STREAM.DELETE", "STREAM.PURGE", "STREAM.UPDATE"):
            with pytest.raises(TimeoutError):
                await nc.request(f"{IMPORTED_API}.{call}.{stream}", b"", timeout=0.1)
    assert await state(guarded) == before


TARGETS = (
    "nebula.events.p.vm.forged",
    "nebula.nodes.n2.wanted.vm.forged",
    "nebula.nodes.n2.reports.vm.forged",
    "nebula.nodes.n2.lease",
    "nebula.vault.forged",
    "nebula.checkpoints",
    "nebula.commands.p.vm.forged",
    "nebula.bus.revoke",
    f"{API}.STREAM.DELETE.{subjects.VAULT}",
    f"{API}.STREAM.PURGE.{subjects.WANTED}",
    f"{IMPORTED_API}.DIRECT.GET.{subjects.EVENTS}",
)


def changes(row: Row) -> bool:
    """Whether the request itself changes a stream or a consumer. Only handlers have others than to store a message."""
    call = row.subject.removeprefix(f"{API}.")
    verbs = ("STREAM.CREATE", "STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE", "CONSUMER.CREATE", "CONSUMER.D")
    return call.startswith(verbs)


def asks(credential: str, row: Row) -> bool:
    """Whether the tests send this request: handlers change streams with others, which they may."""
    return credential != HANDLERS or not (changes(row) or row.subject in {each.subject for each in stored()})


async def test_a_reply_subject_writes_nowhere(guarded: Guarded) -> None:
    await fill(guarded)
    before = kept(await state(guarded))
    for spied in guarded.spies.values():
        spied.heard.clear()
    own: set[str] = set()
    for credential, nc in guarded.connections.items():
        role = ROLES[role_of(credential)]
        if role.account in (Account.CONTROL, Account.SYS):
            continue
        for row in ROWS:
            for subject, node in samples(row):
                if not belongs(credential, row.publish, node):
                    continue
                own.add(subject)
                if not asks(credential, row):
                    continue
                for target in not_own(credential, TARGETS):
                    body = b'{"seq":1}' if "GET" in subject else b""
                    await nc.publish(local(subject, row.home, role.account), body, reply=target)
    await guarded.settled()
    await asyncio.sleep(0.3)
    control = guarded.spies[Account.CONTROL].heard
    assert not [subject for subject, _ in control if subject in TARGETS and subject not in own]
    assert kept(await state(guarded)) == before


def not_own(credential: str, targets: Iterable[str]) -> list[str]:
    """Those that the credential may not use. What it may send itself, an answer may do in its account, too."""
    names = {target: target.replace(IMPORTED_API, API) for target in targets}
    return [target for target, name in names.items() if not covered(credential, name, hear=False)]


def kept(found: dict[str, Any]) -> dict[str, Any]:
    """The streams in which only handlers may write."""
    written = (subjects.REPORTS, subjects.PARKED, subjects.REFUSALS, subjects.TOKEN_USES)
    return {name: each for name, each in found.items() if name not in written}


async def fill(guarded: Guarded) -> None:
    """A message in each stream."""
    nc = guarded.spies[Account.CONTROL].nc
    for subject in (
        *("nebula.events.p.vm.x", "nebula.nodes.n1.wanted.vm.x", "nebula.nodes.n2.wanted.vm.x"),
        *("nebula.nodes.n1.reports.vm.x", "nebula.nodes.n2.lease", "nebula.vault.x", "nebula.checkpoints"),
        *(subjects.parked("log", "1"), subjects.HEALTH_CHECK, subjects.MANAGERS_LEASE),
    ):
        await nc.jetstream().publish(subject, b"x")


async def state(guarded: Guarded) -> dict[str, Any]:
    """The streams, their settings, and how much they have."""
    found = await guarded.connections["maintenance"].jetstream().streams_info()
    return {
        str(info.config.name): (
            info.state.messages,
            info.state.last_seq,
            info.state.consumer_count,
            info.config.subjects,
        )
        for info in found
    }
