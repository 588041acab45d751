"""What nodes say proves its writer: nobody else can say it, or say it again later or elsewhere."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import domain.node
from domain.base import Rejected
from domain.contract import Challenged, Heartbeat, Introduction, LeaseGranted, Leaving, NodeInfo, NodeReport, Power
from domain.node import Node, RegisterNode, evolve as evolve_node
from eventstore.documents import Documents
from eventstore.log.envelope import Context, Ref
from eventstore.log.judge import Tip
from eventstore.log.store import EventStore, Loaded
from handlers.apply import apply
from handlers.managers.liveness import Liveness
from handlers.world.world import World
from runtime import subjects
from runtime.node_keys import (
    ANSWER,
    FRESH,
    HEARTBEAT,
    LEASE,
    LEAVE,
    MAC,
    REGISTER,
    REPORT,
    WANTED,
    NodeKeys,
    answering,
    node_keys,
)
from tests.domain.story import fold
from tests.domain.test_node import register
from tests.handlers.platform import WriteSide, daemon, write_side
from tests.waiting import eventually

KEYS = NodeKeys(b"k" * 32)
NAME = "n1"
SUBJECT = subjects.heartbeat(NAME)


def test_a_challenge_is_valid_for_one_node_and_some_seconds() -> None:
    challenge = KEYS.challenge(NAME, HEARTBEAT, 1000.9)
    assert KEYS.age(NAME, HEARTBEAT, challenge, 1005) == 5
    assert KEYS.age(NAME, HEARTBEAT, challenge, 1000 + FRESH) is not None
    assert KEYS.age(NAME, HEARTBEAT, challenge, 1001 + FRESH) is None
    assert KEYS.age(NAME, HEARTBEAT, challenge, 999 - FRESH) is None
    assert KEYS.age("n2", HEARTBEAT, challenge, 1005) is None
    assert NodeKeys(b"x" * 32).age(NAME, HEARTBEAT, challenge, 1005) is None
    assert KEYS.age(NAME, "register 1", challenge, 1005) is None
    for forged in ("", "-", "1000", "1005-" + challenge.partition("-")[2], "x-y", "\udcff-\udcff", "²-"):
        assert KEYS.age(NAME, HEARTBEAT, forged, 1005) is None


@dataclass
class Heard:
    """A liveness that knows one node, whose daemon has lease 1."""

    signs: bool = True
    liveness: Liveness = field(init=False)

    def __post_init__(self) -> None:
        world, store = World(), EventStore.__new__(EventStore)
        command = register().model_copy(update={"daemon": daemon(NAME), "signed": self.signs})
        state: Node | None = fold(domain.node.evolve, domain.node.decide(None, command))
        world._keep(ref := Ref("system", "node", NAME), Loaded(state, Tip(ref, 1, 1)))
        self.liveness = Liveness(store, world, 60, keys=KEYS)

    @property
    def alive(self) -> bool:
        return self.liveness._is_alive(NAME)


def beat(challenge: str, sequence: int = 1, **changes: Any) -> bytes:
    told = Heartbeat(
        node=NAME, at=datetime.now(UTC), boot=daemon(NAME).boot, wanted_position=0, lease=1, sequence=sequence,
        challenge=challenge,
    )  # fmt: skip
    return told.model_copy(update=changes).model_dump_json().encode()


def mac(body: bytes, label: str = HEARTBEAT, node: str = NAME, subject: str = SUBJECT) -> str:
    return KEYS.mac(node, label, subject, body)


def test_a_heartbeat_counts_with_the_node_s_mac_and_a_valid_challenge() -> None:
    heard = Heard()
    body = beat("")
    answer = heard.liveness.hear(SUBJECT, body, mac(body))
    assert isinstance(answer, Challenged) and not heard.alive
    body = beat(answer.challenge)
    assert heard.liveness.hear(SUBJECT, body, mac(body)) is None and heard.alive


@pytest.mark.parametrize("signs", [True, False])
def test_a_forged_heartbeat_does_not_revive_a_dead_node(signs: bool) -> None:
    heard = Heard(signs)
    body = beat(KEYS.challenge(NAME, HEARTBEAT, time.time()))
    other = subjects.heartbeat("n2")
    forged = ["", "0" * 32, "é", mac(body, REPORT), mac(body, node="n2"), mac(body, subject=other), mac(beat(""))]
    for number, given in enumerate(forged, 1):
        assert heard.liveness.hear(SUBJECT, body, given) is None and not heard.alive
        counted = heard.liveness._malformed.of("heartbeats")
        assert counted is not None and counted.count == number and "MAC" in counted.last_reason
    heard.liveness.hear(SUBJECT, body, None)
    assert heard.alive is not signs, "only a node that has never signed may go on without"


def test_a_heartbeat_that_is_sent_again_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    body = beat(KEYS.challenge(NAME, HEARTBEAT, time.time()), sequence=7)
    heard.liveness.hear(SUBJECT, body, mac(body))
    earlier = beat(KEYS.challenge(NAME, HEARTBEAT, time.time()), sequence=6)
    assert heard.alive
    heard.liveness._heard.clear()
    for again in (body, earlier):
        heard.liveness.hear(SUBJECT, again, mac(again))
        assert not heard.alive
    after_restart, now = Heard(), time.time()
    monkeypatch.setattr(time, "time", lambda: now + FRESH + 1)
    answer = after_restart.liveness.hear(SUBJECT, body, mac(body))
    assert isinstance(answer, Challenged) and not after_restart.alive, "handlers that restarted know no sequence"


def test_a_challenge_is_replaced_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, now = Heard(), time.time()
    body = beat(KEYS.challenge(NAME, HEARTBEAT, now))
    monkeypatch.setattr(time, "time", lambda: now + FRESH / 2)
    answer = heard.liveness.hear(SUBJECT, body, mac(body))
    assert isinstance(answer, Challenged) and heard.alive
    lost = beat(answer.challenge, 2, boot="another")
    refused = heard.liveness.hear(SUBJECT, lost, mac(lost))
    assert isinstance(refused, Rejected) and refused.code == "lease_lost"


@dataclass
class Signing:
    """A node that answers by hand, and has its key."""

    side: WriteSide
    name: str

    @property
    def keys(self) -> NodeKeys:
        return node_keys(self.side.home / "node.keys")

    def introduction(self, **changes: Any) -> Introduction:
        info = NodeInfo(
            node=self.name, region=self.name, vcpus=8, memory_mib=8192, disk_gib=100, virt_type="test",
            seed_url="http://192.0.2.1:8775/", version="0",
        )  # fmt: skip
        said = Introduction(info=info, daemon=daemon(self.name, changes.pop("boot", "b")))
        return said.model_copy(update=changes)

    async def send(self, subject: str, label: str, body: bytes, given: str | None = "") -> dict[str, Any]:
        """A request with the true MAC, unless another is given. The answer has to be signed."""
        proof = self.keys.mac(self.name, label, subject, body) if given == "" else given
        headers = {MAC: proof} if proof is not None else None
        reply = await self.side.nc.request(subject, body, timeout=10, headers=headers)
        proof = (reply.headers or {}).get(MAC)
        assert self.keys.valid(self.name, ANSWER, subject, answering(body, reply.data), proof)
        assert not self.keys.valid(self.name, ANSWER, subject, answering(b"other", reply.data), proof)
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def register(self, given: str | None = "", **changes: Any) -> dict[str, Any]:
        body = self.introduction(**changes).model_dump_json().encode()
        return await self.send(subjects.register(self.name), REGISTER, body, given)

    async def join(self, **changes: Any) -> LeaseGranted:
        challenge = (await self.register(**changes))["ok"]["challenge"]
        granted = LeaseGranted.model_validate((await self.register(challenge=challenge, **changes))["ok"])
        self.side.leases[self.name] = granted.lease
        return granted

    async def state(self) -> Node | None:
        return (await self.side.store.load(Ref("system", "node", self.name), evolve_node, fresh=True)).state


@pytest.fixture(scope="module")
async def side(servers_home: Path) -> AsyncIterator[WriteSide]:
    home = servers_home / f"proofs-{uuid.uuid4().hex[:8]}"
    home.mkdir()
    async with write_side(home, NEBULA_NODE_TIMEOUT="600", NEBULA_UNSIGNED_NODES="false") as made:
        await made.start()
        await made.cloud()
        yield made


async def health(side: WriteSide, source: str) -> int:
    """How many messages of a source `/healthz` shows as malformed."""
    found = (await side.ok("system", "health", "check", {}))["malformed"].get(source, {"count": 0})
    count: int = found["count"]
    return count


async def test_a_lease_is_granted_to_a_signed_request_with_a_challenge(side: WriteSide) -> None:
    node = Signing(side, "granted")
    assert set((await node.register())["ok"]) == {"challenge", "ask_keys", "answer_keys"}
    assert await node.state() is None
    assert (await node.join()).lease == 1
    state = await node.state()
    assert state is not None and state.signs
    note = (await Documents(side.nc, subjects.LEASES).all(subjects.lease(node.name)))[0]
    assert node.keys.valid(node.name, LEASE, note.subject, note.body, note.mac)


async def test_a_node_that_has_signed_is_not_accepted_without(side: WriteSide) -> None:
    node, other = Signing(side, "always"), Signing(side, "other")
    await node.join()
    body = node.introduction(boot="evil", take_over=True, heir=True).model_dump_json().encode()
    theirs = node.keys.mac(other.name, REGISTER, subjects.register(node.name), body)
    as_report = node.keys.mac(node.name, REPORT, subjects.register(node.name), body)
    elsewhere = node.keys.mac(node.name, REGISTER, subjects.register(other.name), body)
    for given in (None, "0" * 32, theirs, as_report, elsewhere):
        before = await health(side, "registrations")
        answer = await node.send(subjects.register(node.name), REGISTER, body, given)
        assert answer["problem"]["code"] == "node_unsigned"
        assert answer["problem"]["status"] == 403
        await eventually(lambda b=before: more(side, b), "it is counted")  # type: ignore[misc]
    leaving = Leaving(boot=daemon(node.name).boot).model_dump_json().encode()
    for given in (None, node.keys.mac(node.name, REGISTER, subjects.leave(node.name), leaving)):
        answer = await node.send(subjects.leave(node.name), LEAVE, leaving, given)
        assert answer["problem"]["code"] == "node_unsigned"
    state = await node.state()
    assert state is not None and state.lease == 1 and state.holder is not None
    assert (await node.send(subjects.leave(node.name), LEAVE, leaving))["ok"] == {}
    state = await node.state()
    assert state is not None and state.holder is None


async def more(side: WriteSide, before: int) -> bool:
    return await health(side, "registrations") > before


async def test_an_earlier_registration_sent_again_takes_no_lease(
    side: WriteSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of a process that has ended, and its challenge too. `heir` would give it the lease."""
    node = Signing(side, "again")
    now = time.time()
    used = (await node.register())["ok"]["challenge"]
    assert (await node.register(challenge=used))["ok"]["lease"] == 1
    assert set((await node.register(boot="old", heir=True, challenge=used))["ok"]) == {
        "challenge",
        "ask_keys",
        "answer_keys",
    }
    for purpose, at in (("register 1", now - FRESH - 1), ("register 0", now), (HEARTBEAT, now)):
        old = node.keys.challenge(node.name, purpose, at)
        answer = await node.register(boot="old", heir=True, challenge=old)
        assert set(answer["ok"]) == {"challenge", "ask_keys", "answer_keys"}
    state = await node.state()
    assert state is not None and state.lease == 1


async def test_a_node_of_an_earlier_version_goes_on_without_until_it_signs(side: WriteSide) -> None:
    """A new name has to sign. So this node has registered before, as in a log of an earlier version."""
    node = Signing(side, "earlier")
    refused = await node.register(given=None)
    assert refused["problem"]["code"] == "node_unsigned" and await node.state() is None
    command = RegisterNode(
        node=node.name, at=datetime.now(UTC), info=node.introduction().info, daemon=daemon(node.name)
    )
    before = Ref("system", "node", node.name)
    await apply(side.store, before, domain.node.decide, domain.node.evolve, command, Context(actor="node:earlier"))
    assert (await node.register(given=None))["ok"]["lease"] == 1
    assert (state := await node.state()) is not None and not state.signs
    challenge = (await node.register(boot="new", heir=True))["ok"]["challenge"]
    granted = await node.register(boot="new", heir=True, challenge=challenge)
    assert granted["ok"]["lease"] == 2
    assert (state := await node.state()) is not None and state.signs
    refused = await node.register(given=None, boot="third", heir=True)
    assert refused["problem"]["code"] == "node_unsigned"


async def placed(side: WriteSide, node: Signing) -> NodeReport:
    """A true report that a new VM of the node runs, not sent yet."""
    vm = await side.create(region=node.name)
    document = await eventually(lambda: side.wanted(vm), "wanted document")
    return NodeReport(
        vm=vm, node=node.name, epoch=document.epoch, lease=side.leases[node.name], sequence=1000, at=datetime.now(UTC),
        power=Power.ON, desired=document.desired, asked_boots=document.boots, boots=document.boots,
        size=document.spec if hasattr(document, "spec") else None,
    )  # fmt: skip


async def send_report(side: WriteSide, report: NodeReport, given: str | None, subject: str | None = None) -> int:
    subject = subject or subjects.report(report.node, "vm", report.vm)
    headers = {MAC: given} if given is not None else None
    ack = await side.nc.jetstream().publish(subject, report.model_dump_json().encode(), headers=headers)
    return ack.seq


async def is_parked(side: WriteSide, position: int) -> bool:
    with suppress(Exception):
        await side.nc.jetstream().get_last_msg(subjects.PARKED, subjects.parked("reports", str(position)))
        return True
    return False


async def test_a_report_counts_with_the_mac_of_its_node_at_its_subject(side: WriteSide) -> None:
    node, other = Signing(side, "reports"), Signing(side, "reports-2")
    await node.join()
    await other.join()
    report = await placed(side, node)
    subject, body = subjects.report(node.name, "vm", report.vm), report.model_dump_json().encode()
    mac = node.keys.mac
    later = report.model_copy(update={"sequence": report.sequence + 1})
    forged = [
        None, "", "0" * 32, mac(other.name, REPORT, subject, body), mac(node.name, WANTED, subject, body),
        mac(node.name, HEARTBEAT, subject, body), mac(node.name, REPORT, subjects.report(node.name, "vm", "x"), body),
        mac(node.name, REPORT, subject, later.model_dump_json().encode()),
    ]  # fmt: skip
    for given in forged:
        position = await send_report(side, report, given)
        await eventually(lambda p=position: is_parked(side, p), "parked")  # type: ignore[misc]
    theirs = subjects.report(other.name, "vm", report.vm)
    position = await send_report(side, report, mac(node.name, REPORT, subject, body), theirs)
    await eventually(lambda: is_parked(side, position), "a true one on the subject of another node")
    assert "VmStarted" not in await side.types("default", "vm", report.vm)
    await send_report(side, report, mac(node.name, REPORT, subject, body))
    await eventually(lambda: side.has("default", "vm", report.vm, "VmStarted"), "the true one counts")


async def test_a_report_sent_again_under_a_later_lease_changes_nothing(side: WriteSide) -> None:
    node = Signing(side, "leases")
    await node.join()
    report = await placed(side, node)
    subject = subjects.report(node.name, "vm", report.vm)

    def true(said: NodeReport) -> str:
        return node.keys.mac(node.name, REPORT, subject, said.model_dump_json().encode())

    await send_report(side, report, true(report))
    await eventually(lambda: side.has("default", "vm", report.vm, "VmStarted"), "it runs")
    assert (await node.join(boot="b2", heir=True)).lease == 2
    off = report.model_copy(update={"lease": 2, "sequence": 10, "power": Power.OFF, "boots": 0, "cause": "guest"})
    await send_report(side, off, true(off))
    await side.judged()
    types = await side.types("default", "vm", report.vm)
    for again in (report, report.model_copy(update={"sequence": 10**15})):
        given = true(report)  # of the first: the second is changed
        await send_report(side, again, given)
    await send_report(side, off.model_copy(update={"lease": 3}), true(off))
    await side.judged()
    assert await side.types("default", "vm", report.vm) == types
