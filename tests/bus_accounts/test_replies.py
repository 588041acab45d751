"""A reply subject is not checked by the server: wherever an answer can be sent, it reaches nobody else, and no stream.

Each credential sends each request of the table, all of them are answered, and each names the subjects of others.
"""

import asyncio
import json
import re

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from runtime import subjects
from runtime.bus.accounts.table import (
    API,
    HANDLERS,
    IMPORTED_API,
    NODE,
    PURGED,
    REVOKE,
    ROLES,
    ROWS,
    STREAMS,
    Account,
    Answers,
    Row,
    local,
    stored,
)
from tests.bus_accounts.conftest import Guarded
from tests.bus_accounts.test_matrix import EVERYTHING, asks, belongs, covered, fill, not_own, plain, samples, state

ANSWER = b"an answer that the caller wants to be elsewhere"


def targets() -> list[str]:
    """Every subject on which somebody hears, and calls that change streams."""
    plain_ones = {subject for row in filter(plain, ROWS) for subject, _ in samples(row)}
    calls = {f"STREAM.{verb}.{stream}" for verb in ("DELETE", "PURGE") for stream in STREAMS}
    return sorted(plain_ones | {f"{prefix}.{call}" for prefix in (API, IMPORTED_API) for call in calls})


def requests(credential: str) -> list[tuple[Row, str]]:
    """The requests that a credential may send, with their names in its account."""
    role = ROLES["node" if credential.startswith("node-") else credential]
    return [
        (row, local(subject, row.home, role.account))
        for row in ROWS
        if row.answers is not Answers.NONE
        for subject, node in samples(row)
        if belongs(credential, row.publish, node)
    ]


#: Rows whose requests are answered by a stream: an acknowledgement, which is no answer that somebody chooses.
STORED = {row.subject for row in stored()}


#: Subjects of streams on which only the credential itself writes.
OWN = {"guest-data": subjects.refusal("guests"), "projections": subjects.refusal("elsewhere")}


async def answer_all(guarded: Guarded) -> None:
    """Answer each request of the table, in the account in which its subject lives."""
    for account, spied in guarded.spies.items():

        async def answer(msg: Msg, nc: Client = spied.nc) -> None:
            if msg.reply:
                await nc.publish(msg.reply, ANSWER)

        for row in filter(plain, ROWS):
            if row.home is account and row.answers is Answers.ONE and row.subject not in STORED:
                await spied.nc.subscribe(row.subject.replace(NODE, "*"), cb=answer)


def known(sender: str, hearer: str, subject: str, reply: str) -> bool:
    """Whether it may be heard: by the sender itself, or what the sender may say anyway.

    Nodes share an account. So a node can make an answer appear as a question or in a session of another node. The other
    node gets no reply subject, so it does nothing; and the id of a session is a secret.
    """
    if hearer == sender or covered(sender, subject, hear=False):
        return True
    of_node = re.fullmatch(r"nebula\.nodes\.[^.]+\.(asks\.x1|sessions\.x1\.node)", subject)
    return sender.startswith(("node-", "simulation")) and of_node is not None and not reply


async def test_an_answer_reaches_nobody_else(guarded: Guarded) -> None:
    await fill(guarded)
    await answer_all(guarded)
    heard: list[tuple[str, str, str]] = []
    for credential, nc in guarded.connections.items():
        if credential in EVERYTHING:
            continue

        async def note(msg: Msg, credential: str = credential) -> None:
            if ANSWER in msg.data:
                heard.append((credential, msg.subject, msg.reply))

        for row in filter(plain, ROWS):
            for subject, node in samples(row):
                if belongs(credential, row.hear, node):
                    await nc.subscribe(subject, cb=note)
    await guarded.settled()
    before = await state(guarded)
    everything = targets()
    for credential, nc in guarded.connections.items():
        role = ROLES["node" if credential.startswith("node-") else credential]
        if role.account in (Account.CONTROL, Account.SYS):
            continue
        own = requests(credential)
        assert own
        for row, subject in own:
            if row.subject not in STORED and asks(credential, row):
                for target in everything if credential != HANDLERS else not_own(credential, everything):
                    if target == OWN.get(credential):  # it may write there without an answer, and nowhere else
                        continue
                    await nc.publish(subject, b'{"seq":1}' if "GET" in subject else b"", reply=target)
        await guarded.settled()
        assert [one for one in set(heard) if not known(credential, *one)] == [], credential
        heard.clear()
    await asyncio.sleep(0.3)
    assert await state(guarded) == before


async def test_an_acknowledgement_is_stored_nowhere(guarded: Guarded) -> None:
    """What a credential may store is acknowledged where it says. Another stream must not store that."""
    await fill(guarded)
    for credential, nc in guarded.connections.items():
        role = ROLES["node" if credential.startswith("node-") else credential]
        if role.account in (Account.CONTROL, Account.SYS):
            continue
        for row, subject in requests(credential):
            if row.subject in STORED:
                before = await state(guarded)
                for target in not_own(credential, targets()):
                    await nc.publish(subject, b"x", reply=target)
                await nc.request(subject, b"x", timeout=10)  # stored after the others
                after = await state(guarded)
                changed = {name for name in before if before[name][1] != after[name][1]}
                assert len(changed) == 1, (credential, row.subject, changed)


async def test_handlers_delete_and_purge_nothing_by_an_answer(guarded: Guarded) -> None:
    """The empty answer to a direct get or a pull would delete a stream in the account of the streams."""
    await fill(guarded)
    before = await state(guarded)
    nc, consumer = guarded.connections["handlers"], {"name": "mine", "deliver_policy": "all", "ack_policy": "none"}
    for stream in STREAMS:
        create = json.dumps({"stream_name": stream, "config": consumer}).encode()
        assert b"error" not in (await nc.request(f"{IMPORTED_API}.CONSUMER.CREATE.{stream}.mine", create)).data
    changing = [call for call in targets() if ".STREAM.DELETE." in call or ".STREAM.PURGE." in call]
    forbidden = not_own(HANDLERS, changing)
    assert len(forbidden) == 2 * (2 * len(STREAMS) - len(PURGED))
    for stream in STREAMS:
        for call, body in (
            (f"STREAM.INFO.{stream}", b""),
            (f"STREAM.MSG.GET.{stream}", b'{"seq":1}'),
            (f"CONSUMER.INFO.{stream}.mine", b""),
            (f"DIRECT.GET.{stream}", b'{"seq":1}'),
            (f"DIRECT.GET.{stream}", b'{"seq":99999}'),
            (f"CONSUMER.MSG.NEXT.{stream}.mine", b'{"batch":99,"no_wait":true}'),
            (f"CONSUMER.MSG.NEXT.{stream}.mine", b'{"batch":1,"no_wait":true}'),
            (f"CONSUMER.MSG.NEXT.{stream}.none", b'{"no_wait":true}'),
        ):
            for target in forbidden:
                await nc.publish(f"{IMPORTED_API}.{call}", body, reply=target)
    for row, subject in requests("handlers"):
        if row.subject in STORED:
            for target in forbidden:
                await nc.publish(subject, b"", reply=target)
    for stream in STREAMS:
        for number, target in enumerate(one for one in forbidden if one.startswith(f"{API}.")):
            pushed = {**consumer, "name": f"push{number}", "deliver_subject": target, "idle_heartbeat": 10**8}
            create = json.dumps({"stream_name": stream, "config": pushed}).encode()
            await nc.publish(f"{IMPORTED_API}.CONSUMER.CREATE.{stream}.push{number}", create)
    await guarded.settled()
    await asyncio.sleep(1.0)
    after = await state(guarded)
    assert after.keys() == before.keys()
    limited = (subjects.WANTED, subjects.LEASES, subjects.MANAGERS, subjects.HEALTH, subjects.REPORTS)
    assert all(after[name][0] >= before[name][0] for name in before if name not in limited)
    assert all(after[name][0] > 0 for name in limited)


async def test_handlers_change_no_setting_of_a_stream(guarded: Guarded) -> None:
    """A stream that republishes an empty message on a call of JetStream would delete another one."""
    await fill(guarded)
    before = await state(guarded)
    nc = guarded.connections["handlers"]
    for stream in STREAMS:
        info = json.loads((await nc.request(f"{IMPORTED_API}.STREAM.INFO.{stream}")).data)
        subject = info["config"]["subjects"][0]
        republish = {"src": subject, "dest": f"{API}.STREAM.DELETE.{subjects.VAULT}"}
        config = json.dumps({**info["config"], "republish": republish}).encode()
        for prefix in (API, IMPORTED_API):
            with pytest.raises((TimeoutError, NoRespondersError)):
                await nc.request(f"{prefix}.STREAM.UPDATE.{stream}", config, timeout=0.1)
        answer = json.loads((await nc.request(f"{IMPORTED_API}.STREAM.CREATE.{stream}", config)).data)
        assert answer["error"]["err_code"] == 10058  # in use with another configuration
    assert await state(guarded) == before


async def test_a_node_answers_what_it_was_asked_once_and_nothing_else(guarded: Guarded) -> None:
    node, gateway = guarded.connections["node-n1"], guarded.connections["gateway"]
    replies: list[str] = []

    async def answer(msg: Msg) -> None:
        replies.append(msg.reply)
        for body in (b"the answer", b"another one"):
            await node.publish(msg.reply, body)

    await node.subscribe("nebula.nodes.n1.asks.*", cb=answer)
    await node.flush()
    inbox, heard = gateway.new_inbox(), []

    async def note(msg: Msg) -> None:
        heard.append(msg.data)

    await gateway.subscribe(inbox, cb=note)
    for _ in range(3):
        await gateway.publish("nebula.nodes.n1.asks.guest", b"", reply=inbox)
        await guarded.settled()
    assert heard == [b"the answer"] * 3
    spied = guarded.spies[Account.NODES]
    everywhere: list[str] = []

    async def spy(msg: Msg) -> None:
        everywhere.append(msg.subject)

    await spied.nc.subscribe("_R_.>", cb=spy)
    await spied.nc.subscribe("_INBOX.>", cb=spy)
    await spied.nc.flush()
    for subject in (*replies, "_R_.a.b", "_INBOX.node-n2.x", "_INBOX.simulation.x", "_INBOX.node-n1.x"):
        await node.publish(subject, b"forged")
    await guarded.settled()
    assert everywhere == []


async def test_revoking_is_answered(guarded: Guarded) -> None:
    authority, handlers = guarded.connections["authority"], guarded.connections["handlers"]

    async def answer(msg: Msg) -> None:
        await authority.publish(msg.reply, b"done")

    await authority.subscribe(REVOKE, cb=answer)
    await authority.flush()
    assert (await handlers.request(REVOKE, b"", timeout=5)).data == b"done"
