"""Reports at rest: a node repeats them only if the log does not know what it sees."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from domain.contract import Desired, Heartbeat, KnownVms, NodeReport, Power
from domain.contract.known import digest, fact
from node_daemon.reconcile import agreement, daemon as module
from node_daemon.reconcile.agreement import Agreement
from node_daemon.reconcile.reports import LAST_REPORTS
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from runtime import subjects
from runtime.bus import replies
from runtime.local.servers import NatsServer
from tests.node_daemon.harness import Node, a_node, gone, on
from tests.waiting import eventually

SEEN = [fact("a", 1, Power.ON), fact("b", 1, Power.ON)]
SAME = KnownVms(digest=digest(SEEN))
OTHER = KnownVms(digest=digest(SEEN[:1]))
NAMED = KnownVms(digest=digest(SEEN[:1]), awaited=("00000000-0000-4000-8000-000000000001",))
TOO_MANY = KnownVms(digest=digest(SEEN), awaited=None)


@pytest.mark.parametrize(
    ("answers", "again"),
    [
        ([[SAME]], frozenset()),
        ([[]], None),
        ([[OTHER], [OTHER]], None),
        ([[OTHER], [SAME]], frozenset()),
        ([[OTHER], []], None),
        ([[SAME, OTHER], [OTHER, SAME]], None),
        ([[SAME, OTHER], [SAME, SAME]], frozenset()),
        ([[NAMED]], frozenset(NAMED.awaited or ())),
        ([[TOO_MANY], [TOO_MANY]], None),
    ],
)
async def test_what_is_repeated(
    monkeypatch: pytest.MonkeyPatch, answers: list[list[KnownVms]], again: frozenset[str] | None
) -> None:
    monkeypatch.setattr(agreement, "OTHERS", 0.01)
    monkeypatch.setattr(agreement, "AGAIN", 0.3)
    one = Agreement(1.0)
    asked = iter(answers)

    async def answer() -> None:
        while True:
            await eventually(lambda: one.asks, "it asks")
            for each in next(asked):
                one.take(each)
            await eventually(lambda: not one.asks, "it has the answers")

    task = asyncio.create_task(answer())
    one.take(OTHER)  # an answer that it did not ask for
    named = set(NAMED.awaited or ())
    assert await one.to_repeat(lambda without: SEEN[:1] if without == named else SEEN) == again
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert next(asked, None) is None


@asynccontextmanager
async def answering(node: Node, known: Sequence[KnownVms]) -> AsyncIterator[list[Heartbeat]]:
    """Answer heartbeats that ask as handlers do: with the first of `known`, which a test changes."""
    asked: list[Heartbeat] = []

    async def hear(msg: Any) -> None:
        beat = Heartbeat.model_validate_json(msg.data)
        if beat.asks_known:
            asked.append(beat)
            if known:
                body = {"challenge": "", "known": known[0].model_dump()}
                await node.client.publish(msg.reply, replies.accepted(body))

    subscription = await node.client.subscribe(subjects.heartbeat(node.settings.node), cb=hear)
    yield asked
    await subscription.unsubscribe()


@pytest.fixture
async def node(tmp_path: Path, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    monkeypatch.setattr(module, "FULL_REPORT", 0.05)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(agreement, "OTHERS", 0.01)
    monkeypatch.setattr(agreement, "AGAIN", 0.05)
    async with a_node(tmp_path, nats_server.url, "test:///simulated") as made:
        yield made


def of(report: NodeReport) -> int:
    return fact(report.vm, report.epoch, report.power, report.boots, report.resets, report.addresses)


async def test_nothing_is_repeated_while_the_log_knows_all(node: Node) -> None:
    async with node.daemon(Simulator(SimulatedHost(node.settings.node))):
        vm = await node.create()
        await node.until(vm, on)
        await eventually(lambda: node.reports[vm][-1].addresses, "it has an address")
        count = len(node.reports[vm])
        await eventually(lambda: len(node.reports[vm]) > count + 1, "without an answer it is repeated")
        known = [KnownVms(digest=digest([of(node.reports[vm][-1])]))]
        async with answering(node, known) as asked:
            await eventually(lambda: len(asked) > 1, "it asks")
            count = len(node.reports[vm])
            await eventually(lambda: len(asked) > 5, "it asks again")
            assert len(node.reports[vm]) == count, "and repeats nothing"
            known[0] = KnownVms(digest=digest([]), awaited=(vm,))
            await eventually(lambda: len(node.reports[vm]) > count, "handlers await it")
            known[0] = KnownVms(digest=digest([]))
            count = len(node.reports[vm])
            await eventually(lambda: len(node.reports[vm]) > count + 1, "the log does not know it")


async def test_the_last_report_of_a_removed_vm_is_not_repeated_for_ever(node: Node) -> None:
    async with node.daemon(Simulator(SimulatedHost(node.settings.node))) as daemon:
        vm, other = await node.create(), await node.create()
        await node.until(vm, on)
        await node.until(other, on)
        await node.want(node.documents[vm].model_copy(update={"generation": 2, "desired": Desired.ABSENT}))
        await node.until(vm, gone)
        count = len(node.reports[other])
        await eventually(lambda: len(node.reports[other]) > count + LAST_REPORTS + 3, "others are repeated")
        last = [report for report in node.reports[vm] if gone(report)]
        assert len(last) == LAST_REPORTS
        assert vm not in daemon._lanes and vm in daemon._wanted.all()
        async with answering(node, [KnownVms(digest=digest([]), awaited=(vm,))]):
            await eventually(lambda: len(node.reports[vm]) > len(last), "unless handlers await it")
        await node.want(node.documents[vm].model_copy(update={"generation": 3, "desired": Desired.OFF}))
        await node.until(vm, lambda report: report.desired is Desired.OFF)
