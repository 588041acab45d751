"""The dispatcher on its driver, without servers: one VM's documents in order, conflicts, reading beside writing."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from domain import node, vm
from domain.base import Resources, replace
from domain.contract import Desired, Wanted
from domain.node import Node
from domain.vm import Vm
from eventstore.documents import Document
from eventstore.log.envelope import Ref
from eventstore.log.judge import Tip
from eventstore.log.store import Conflict, Loaded, Unavailable
from handlers.managers import failure
from handlers.managers.dispatch import Dispatcher
from handlers.managers.wanted_documents import READ_AGAIN, Key
from handlers.world.world import World
from runtime import subjects
from runtime.tasks.backoff import Backoff
from tests.domain import lives
from tests.domain.story import fold, uid
from tests.domain.test_node import register
from tests.eventstore.log import matches
from tests.waiting import eventually


class Stream:
    """Documents as the stream keeps them. `rivals` write just before a put; `overtaken` hears of one just behind it."""

    connection = 0

    def __init__(self) -> None:
        self.stood: dict[str, Document] = {}
        self.position = 0
        self.puts: list[Wanted] = []
        self.slow_read: asyncio.Event | None = None
        self.hung: set[str] = set()
        self.rivals = 0
        self.overtaken: Callable[[Document], None] | None = None
        self.away = False

    def lay(self, subject: str, body: bytes) -> None:
        self.position += 1
        self.stood[subject] = Document(subject, self.position, body, datetime.now(UTC))

    async def all(self, filter_: str) -> list[Document]:
        found = [document for subject, document in self.stood.items() if matches(filter_, subject)]
        if self.slow_read is not None:
            await self.slow_read.wait()
        return found

    async def pages(self, filter_: str) -> AsyncIterator[list[Document]]:
        found = await self.all(filter_)
        for start in range(0, len(found), 7):
            await asyncio.sleep(0)
            yield found[start : start + 7]

    async def one_page(self, filter_: str) -> AsyncIterator[list[Document]]:
        yield await self.all(filter_)

    async def put(self, subject: str, body: bytes, *, last: int, mac: str | None = None) -> int:
        await asyncio.sleep(0)
        found = Wanted.model_validate_json(body)
        if found.vm in self.hung:
            await asyncio.Event().wait()
        if self.away:
            raise Unavailable("away")
        if self.rivals:
            self.rivals -= 1
            self.lay(subject, b"what a rival wrote")
        if (self.stood[subject].position if subject in self.stood else 0) != last:
            raise Conflict(subject)
        self.lay(subject, body)
        self.puts.append(found)
        position = self.position
        if self.overtaken is not None:
            self.lay(subject, found.model_copy(update={"desired": Desired.OFF}).model_dump_json().encode())
            self.overtaken(self.stood[subject])
            self.overtaken = None
        return position


class Vault:
    async def held(self) -> set[str]:
        return set()

    async def seed_secret(self, vm_id: str, boots: int) -> str:
        await asyncio.sleep(0)
        return f"{vm_id}-{boots}"


def told(commands: Sequence[Any]) -> Vm:
    """The VM that these commands lead to."""
    state: Vm | None = None
    for command in commands:
        for event in vm.decide(state, command):
            state = vm.evolve(state, event)
    assert state is not None
    return state


class Bed:
    """A world of one node, and VMs that tests move on."""

    def __init__(self) -> None:
        self.world, self.stream = World(), Stream()
        host: Node | None = fold(node.evolve, node.decide(None, register()))
        self.world._keep(Ref("system", "node", "n1"), Loaded(host, Tip(Ref("system", "node", "n1"), 1, 1)))
        vault: Any = Vault()
        documents: Any = self.stream
        self.dispatcher = Dispatcher(documents, vault, self.world)
        self.driver = self.dispatcher.driver()

    def put(self, number: int, commands: Sequence[Any], version: int) -> str:
        """A VM as the log has it now."""
        state = replace(told(commands), id=uid(number))
        ref = Ref("p", "vm", state.id)
        self.world._keep(ref, Loaded(state, Tip(ref, version, version)))
        for watch in self.world._watches:
            watch.add(ref)
        self.world.nudge()
        return state.id


@pytest.fixture
async def bed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    for name in ("RETRY", "RETRY_PASSING", "RETRY_CONFLICT"):
        monkeypatch.setattr(failure, name, Backoff(first=0.001, last=0.001))
    made = Bed()
    task = asyncio.create_task(made.driver.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def written(bed: Bed, vm_id: str, desired: Desired) -> None:
    def stands() -> bool:
        return (document := bed.stream.stood.get(subjects.wanted("n1", "vm", vm_id))) is not None and (
            b'"desired":"%b"' % desired.encode() in document.body
        )

    await eventually(stands, f"{desired} stands")


async def test_a_document_that_hangs_delays_no_other_vm(bed: Bed) -> None:
    bed.stream.hung = {uid(n) for n in range(1, 6)}
    for number in range(1, 31):
        bed.put(number, lives.RUNNING, 3)
    for number in range(6, 31):
        await written(bed, uid(number), Desired.ON)
    assert bed.driver.status().running == 5


async def test_one_vms_documents_stand_in_order(bed: Bed) -> None:
    for version in range(3, 60):
        commands = lives.RUNNING if version % 2 else lives.STOPPING
        for number in (1, 2, 3):
            bed.put(number, commands, version)
        if version % 5 == 0:
            await asyncio.sleep(0)
    for number in (1, 2, 3):
        await written(bed, uid(number), Desired.ON)
        await eventually(lambda: not bed.driver.known(), "all is done")
        generations = [put.generation for put in bed.stream.puts if put.vm == uid(number)]
        assert generations == sorted(generations)
        assert bed.stream.puts[-1].desired is Desired.ON


@pytest.mark.parametrize("rivals", [1, 5])
async def test_who_lost_a_race_reads_and_writes_again(bed: Bed, rivals: int) -> None:
    bed.stream.rivals = rivals
    bed.put(1, lives.RUNNING, 3)
    await written(bed, uid(1), Desired.ON)
    assert bed.stream.rivals == 0
    await eventually(lambda: not bed.driver.known(), "it is forgotten")
    assert bed.driver.status().failing_since is None


async def test_a_forged_document_that_is_seen_before_the_own_write_is_answered_is_replaced(bed: Bed) -> None:
    """Else the older of the two would be taken for the one that stands, and nobody would look again for minutes."""
    bed.stream.overtaken = bed.dispatcher.found
    bed.put(1, lives.RUNNING, 3)
    await written(bed, uid(1), Desired.ON)
    await eventually(lambda: bed.stream.overtaken is None and not bed.driver.known(), "it is settled")
    await written(bed, uid(1), Desired.ON)
    assert len(bed.stream.puts) == 2


async def test_a_document_of_before_stays_where_it_says_the_same(bed: Bed) -> None:
    """Its place is not in it, nor was its kind, so that an upgrade writes no document anew for that."""
    bed.put(1, lives.RUNNING, 3)
    await written(bed, uid(1), Desired.ON)
    [document] = bed.stream.stood.values()
    said = json.loads(document.body)
    assert said.pop("kind") == "vm" and "place" not in said
    bed.dispatcher._documents.learn(dataclasses.replace(document, body=json.dumps(said).encode()))
    bed.put(1, lives.RUNNING, 4)
    await eventually(lambda: bed.dispatcher._settled.get(uid(1)) == 4, "it is looked at")
    assert len(bed.stream.puts) == 1


@pytest.mark.parametrize(("kind", "said"), [("volume", "vm"), ("volume", "volume"), ("vm", "volume")])
async def test_a_document_of_another_kind_is_none_of_a_vm(bed: Bed, kind: str, said: str) -> None:
    bed.put(1, lives.RUNNING, 3)
    await written(bed, uid(1), Desired.ON)
    [document] = bed.stream.stood.values()
    forged = {**json.loads(document.body), "kind": said, "desired": "off"}
    subject = subjects.wanted("n1", kind, uid(1))
    bed.dispatcher._documents.learn(dataclasses.replace(document, subject=subject, body=json.dumps(forged).encode()))
    assert Key("n1", kind, uid(1)) not in bed.dispatcher._documents.of(uid(1))
    assert [where.subject for where, _ in bed.dispatcher._documents.malformed] == [subject]


async def test_what_is_written_while_all_are_read_is_newer_than_what_is_read(bed: Bed) -> None:
    """The reading sees the document before the one that is written meanwhile, and comes to its end after it."""
    bed.put(1, lives.RUNNING, 3)
    await written(bed, uid(1), Desired.ON)
    bed.stream.slow_read = asyncio.Event()
    reading = asyncio.create_task(bed.dispatcher._read())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bed.put(1, lives.STOPPING, 4)
    await written(bed, uid(1), Desired.OFF)
    bed.stream.slow_read.set()
    await reading
    kept = bed.dispatcher._documents.get(Key("n1", "vm", uid(1)))
    assert kept is not None and kept.desired is Desired.OFF
    bed.put(1, lives.RUNNING, 5)
    await written(bed, uid(1), Desired.ON)


async def test_the_stream_away_for_a_while(bed: Bed) -> None:
    bed.stream.away = True
    for number in range(1, 40):
        bed.put(number, lives.RUNNING, 3)
    await eventually(lambda: bed.driver.status().failing_since, "it shows")
    bed.stream.away = False
    for number in range(1, 40):
        await written(bed, uid(number), Desired.ON)


async def test_a_document_that_somebody_removed_is_written_again(bed: Bed) -> None:
    vm_id = bed.put(1, lives.RUNNING, 3)
    await written(bed, vm_id, Desired.ON)
    bed.stream.stood.clear()
    bed.put(1, [*lives.RUNNING, lives.ask(vm.StopVm)], 4)
    await written(bed, vm_id, Desired.OFF)


async def test_the_documents_of_a_node_have_its_new_url_without_waiting_for_a_read(bed: Bed) -> None:
    for number in (1, 2):
        bed.put(number, lives.RUNNING, 3)
        await written(bed, uid(number), Desired.ON)
    ref = Ref("system", "node", "n1")
    host = bed.world.node("n1")
    assert host is not None
    for vm_id in (uid(1), uid(2)):
        host = replace(host, reservations=host.reservations.insert(vm_id, Resources(vcpus=1)))
    host = replace(host, info=host.info.with_seed_url("http://192.0.2.99:1/"))
    bed.world._keep(ref, Loaded(host, Tip(ref, 2, 2)))
    for watch in bed.world._watches:
        watch.add(ref)
    bed.world.nudge()

    def new() -> bool:
        return all(b"192.0.2.99" in document.body for document in bed.stream.stood.values())

    await eventually(new, "all documents have the new URL")


async def test_all_documents_are_read_again_the_less_often_the_more_there_are(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 11):
        bed.put(number, lives.RUNNING, 3)
        await written(bed, uid(number), Desired.ON)
    documents = bed.dispatcher._documents
    documents._read_at = asyncio.get_running_loop().time() - READ_AGAIN + 10
    assert not documents.is_due()
    documents._read_at -= 20
    assert documents.is_due()
    monkeypatch.setattr("handlers.managers.wanted_documents.READ_EACH", READ_AGAIN)
    assert not documents.is_due()
    documents._connection -= 1
    assert documents.is_due(), "the server may be another one"


async def test_other_tasks_run_while_everything_is_looked_at(bed: Bed) -> None:
    """The lease of the managers is renewed by one of them: without it the look is cancelled, and begins again."""
    for number in range(1, 301):
        bed.put(number, lives.RUNNING, 3)
    for number in range(1, 301):
        await written(bed, uid(number), Desired.ON)
    ran = 0

    async def others() -> None:
        nonlocal ran
        while True:
            ran += 1
            await asyncio.sleep(0)

    ticks, submitted = asyncio.create_task(others()), list[str]()
    driver: Any = SimpleNamespace(submit=lambda key, *_: submitted.append(key), knows=lambda _: False)
    bed.stream.pages = bed.stream.one_page  # type: ignore[method-assign]
    held = await bed.dispatcher._read()
    reading = ran
    await bed.dispatcher._begin_all(held, driver)
    ticks.cancel()
    assert min(reading, ran - reading) >= 300 // 64
    assert len(submitted) == 300
