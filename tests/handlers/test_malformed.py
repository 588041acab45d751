"""Handlers on a log that holds messages which are no events: they park them, and decide."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain.contract import Power
from domain.tag import TagCreated
from eventstore.log.envelope import Ref
from eventstore.log.judge import Tip
from eventstore.parking.capacity import MOST_OPEN
from eventstore.parking.parked import MORE
from eventstore.parking.parking import LOG, REPORTS, NotParked, Parking, Status
from handlers.queues.queues import consumer_name
from runtime import subjects
from runtime.bus.quick_client import QuickClient
from tests.eventstore.log import AT
from tests.handlers.platform import WriteSide, write_side
from tests.integrity.malformed import lay, strays
from tests.waiting import eventually


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[WriteSide]:
    async with write_side(tmp_path, NEBULA_NODE_TIMEOUT="3600") as made:
        await made.start()
        await made.cloud()
        await made.node("n1")
        yield made


async def spoil(side: WriteSide, *refs: Ref) -> list[int]:
    """Put everything there is on these subjects; the positions."""
    nc = QuickClient()
    await nc.connect(side.nats.url)
    laid = []
    for ref in refs:
        tip = await tip_of(side, ref)
        event = TagCreated(at=AT, operation="o", fingerprint="f", tag=ref.id, name="n")
        for what, stray in strays(ref, tip, event).items():
            if ref.kind == "tag" and what == "another kind's type":
                continue
            laid.append(await lay(nc, ref.subject.encode(), stray))
    await nc.close()
    return laid


async def tip_of(side: WriteSide, ref: Ref) -> Tip:
    history = await side.store.history(ref)
    tip = Tip(ref)
    for recorded in history:
        tip = tip.after(recorded)
    return tip


async def test_malformed_messages_are_parked_and_commands_decided(side: WriteSide) -> None:
    vm = await side.create()
    wanted = await eventually(lambda: side.wanted(vm), "wanted document")
    await side.report(wanted, Power.ON, boots=1)
    await eventually(lambda: side.has("default", "vm", vm, "VmStarted"), "started")
    coming = "11111111-1111-4111-8111-111111111111"
    first = await side.nc.jetstream().publish(subjects.event("default", "vm", "hello"), b"hi")
    laid = await spoil(
        side,
        Ref("default", "vm", vm),
        Ref("default", "vm", coming),
        Ref("elsewhere", "vm", coming),
        Ref("system", "node", "n1"),
        Ref("later", "project", "later"),
        Ref("system", "tag", "blue"),
    )
    parking = Parking(side.nc)

    async def parked() -> bool:
        info = await side.nc.jetstream().stream_info(subjects.PARKED)
        return info.state.messages == len(laid) + 1

    await eventually(parked, "all parked")
    record = await parking.get(LOG, str(first.seq))
    assert (record.subject, record.error) == ("nebula.events.default.vm.hello", "the message has no headers")

    await side.ok("default", "vm", "stop", {"vm": vm, "force": True})
    await side.ok("later", "project", "create", {"project": "later", "name": "Later"})
    await side.ok("system", "tag", "create", {"tag": "blue", "name": "Blue"})
    await side.ok("system", "node", "cordon", {"node": "n1"})
    await side.ok("system", "node", "uncordon", {"node": "n1"})
    await side.create(coming)
    await side.report(wanted, Power.OFF)
    await eventually(lambda: side.has("default", "vm", vm, "VmStopped"), "stopped")

    await parking.drop(LOG, str(first.seq), actor="alice", reason="seen")
    for _ in range(2):
        await side.stop_all()
        await side.start()
        await side.ok("default", "vm", "change", {"vm": coming, "labels": {"a": "b"}})
    assert (await parking.get(LOG, str(first.seq))).status is Status.DROPPED
    assert (await side.nc.jetstream().stream_info(subjects.PARKED)).state.messages == len(laid) + 2


async def test_a_report_is_parked_and_judged_again(side: WriteSide) -> None:
    subject = subjects.report("n1", "vm", "x")
    stored = await side.nc.jetstream().publish(subject, b"not json")
    parking = Parking(side.nc)

    async def parked(position: int) -> bool:
        info = await side.nc.jetstream().stream_info(
            subjects.PARKED, subjects_filter=subjects.parked(REPORTS, str(position))
        )
        return bool(info.state.subjects)

    await eventually(lambda: parked(stored.seq), "parked")
    assert (await parking.retry(REPORTS, str(stored.seq), actor="alice")).status is Status.RETRIED
    again = await side.nc.jetstream().get_last_msg(subjects.REPORTS, subject)
    assert again.seq is not None
    assert again.seq > stored.seq
    await eventually(lambda: parked(again.seq or 0), "parked again")


async def fill(side: WriteSide, *sources: str) -> None:
    """As many open records as there is room for."""
    js = side.nc.jetstream()
    for source in sources:
        for number in range(MOST_OPEN):
            record = {
                "source": source,
                "key": f"k{number}",
                "subject": "s",
                "position": 0,
                "error": "e",
                "time": str(AT),
            }
            await js.publish_async(subjects.parked(source, f"k{number}"), json.dumps(record).encode())
    await js.publish_async_completed()


async def test_a_flood_is_counted_and_what_is_good_goes_on(side: WriteSide) -> None:
    """Beyond the bound neither the stream nor memory grows, and good messages are not kept waiting by bad ones."""
    vm = await side.create()
    wanted = await eventually(lambda: side.wanted(vm), "wanted document")
    await fill(side, LOG, REPORTS)
    js, parking = side.nc.jetstream(), Parking(side.nc)
    for number in range(100):
        await js.publish_async(subjects.report("n1", "vm", f"x{number}"), b"{")
        await js.publish_async(subjects.event("default", "vm", "hello"), b"hi")
    await js.publish_async_completed()
    await side.report(wanted, Power.ON, boots=1)
    await eventually(lambda: side.has("default", "vm", vm, "VmStarted"), "a good report behind them is heard")
    await side.ok("default", "vm", "stop", {"vm": vm, "force": True})

    async def counted(source: str, number: int) -> bool:
        try:
            return (await parking.get(source, MORE)).count == number
        except NotParked:
            return False

    for source in (LOG, REPORTS):
        await eventually(lambda source=source: counted(source, 100), f"all of {source} are counted")  # type: ignore[misc]
    assert (await js.stream_info(subjects.PARKED)).state.messages == 2 * (MOST_OPEN + 1)
    pending = await js.consumer_info(subjects.REPORTS, consumer_name(REPORTS))
    assert (pending.num_pending, pending.num_ack_pending) == (0, 0)

    await parking.drop(REPORTS, "k0", actor="alice", reason="seen")
    await side.stop_all()
    await side.start()
    await js.publish(subjects.event("default", "vm", "hello"), b"hi")
    stored = await js.publish(subjects.report("n1", "vm", "late"), b"{")

    async def parked() -> bool:
        try:
            return (await parking.get(REPORTS, str(stored.seq))).open
        except NotParked:
            return False

    await eventually(parked, "there is room again")
    await eventually(lambda: counted(LOG, 101), "a restart counts nothing twice")
