"""The fast check of whole ranges finds exactly what the check of each message finds, with and without processes."""

import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import nats
import pytest

from eventstore.integrity import ranges
from eventstore.integrity.audit import verify_log
from eventstore.integrity.checking import Orders, Worker
from eventstore.integrity.checkpoints import Keys
from eventstore.integrity.notary import Checkpoints
from eventstore.integrity.ranges import Ranges
from eventstore.integrity.report import Report
from eventstore.log.envelope import Recorded
from eventstore.log.macs import MAC
from eventstore.log.store import EventStore
from runtime import subjects
from runtime.bus import bulk
from runtime.bus.quick_client import QuickClient
from tests.event_keys import KEYS, STRANGERS
from tests.integrity.logs import Log, altered, running
from tests.integrity.test_log import with_holes
from tests.processes import alive

Damage = Callable[[list[Recorded], int], list[Recorded]]


class Signed(Log):
    """A log whose events have MACs."""

    @property
    def store(self) -> EventStore:
        return EventStore(self.nc, KEYS)


def changed(change: Callable[[Recorded], Recorded]) -> Damage:
    return lambda events, at: [*events[:at], change(events[at]), *events[at + 1 :]]


def with_mac(mac: str | None) -> Damage:
    def change(recorded: Recorded) -> Recorded:
        headers = {name: value for name, value in recorded.headers.items() if name != MAC}
        return replace(recorded, headers=headers if mac is None else {**headers, MAC: mac})

    return changed(change)


DAMAGES: dict[str, Damage] = {
    "nothing": lambda events, at: events,
    "body": changed(lambda one: replace(one, body=one.body + b" ")),
    "no json": changed(lambda one: replace(one, body=b"{")),
    "actor": changed(lambda one: altered(one, ce_actor="mallory")),
    "version": changed(lambda one: altered(one, ce_aggregateversion="9")),
    "shape": changed(lambda one: altered(one, ce_aggregateversion="x")),
    "time": changed(lambda one: altered(one, ce_time="9999-01-01T00:00:00+00:00")),
    "type": changed(lambda one: altered(one, ce_type="acme.Thing")),
    "newer": changed(lambda one: altered(one, ce_typeversion="7")),
    "another kind": changed(lambda one: altered(one, ce_type="nebula.vm.VmLost")),
    "previous": changed(lambda one: altered(one, ce_prevhash="1" * 64)),
    "no mac": with_mac(None),
    "forged": with_mac(STRANGERS.mac("0" * 64)),
    "two spaces": changed(lambda one: altered(one, ce_actor="a  b")),
    "a sequence": changed(lambda one: altered(one, Nats_Sequence="3")),
    "gone": lambda events, at: events[:at] + events[at + 1 :],
    "twice": lambda events, at: [*events[: at + 1], *events[at:]],
    "swapped": lambda events, at: [*events[:at], *reversed(events[at : at + 2]), *events[at + 2 :]],
    "cut": lambda events, at: events[:at],
    "junk": lambda events, at: [*events[:at], replace(events[at], headers={}, body=b"junk"), *events[at:]],
}

SOUND = ("nothing", "a sequence")
"""No damage: headers of storage belong to the server, which replaces them."""


async def compared(log: Log, keys: Keys, monkeypatch: pytest.MonkeyPatch, size: int) -> Report:
    """The report, which is the same by both ways, whatever is given to them."""
    plain = await nats.connect(log.server.url)  # it cannot collect, so each message is verified by itself
    monkeypatch.setattr(ranges, "SIZE", size)
    found = Report("")
    for trusted, event_keys, foreign in (
        (None, None, ["acme.*"]),
        (keys, None, []),
        (None, KEYS, []),
        (keys, KEYS, []),
    ):
        found, slow = [
            await verify_log(nc, keys=trusted, event_keys=event_keys, foreign=foreign) for nc in (log.nc, plain)
        ]
        assert found == slow
    await plain.close()
    return found


@pytest.mark.parametrize("name", DAMAGES)
async def test_each_damage_is_found_as_without_ranges(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(name)
    async with running() as honest:
        log = Signed(honest.home, honest.server, honest.nc)
        for first in (0, 12, 24):
            await log.grow(12, first=first)
            assert await log.notary().step() is not None
        events = await log.all()
        signed = [await Checkpoints(log.nc).number(number) for number in (1, 2, 3)]
        keys = log.keys
    async with running() as other:
        await other.lay(DAMAGES[name](events, chance.randrange(1, len(events) - 2)))
        for number, checkpoint in enumerate(signed):
            assert checkpoint is not None
            await Checkpoints(other.nc).append(checkpoint, number)
        for size in (1, 4):
            report = await compared(other, keys, monkeypatch, size)
        assert report.ok == (name in SOUND)


async def test_holes_are_found_as_without_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as honest, running() as other:
        log = Signed(honest.home, honest.server, honest.nc)
        await log.grow(20)
        events = await log.all()
        await with_holes(other, events, 1, 5, 6, 7, 8, 9, len(events))
        for size in (1, 3, 1000):
            report = await compared(other, {}, monkeypatch, size)
        assert {"missing", "version"} <= {finding.code for finding in report.findings}


async def test_several_processes_find_the_same_and_may_be_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "WORTH_IT", 0)
    monkeypatch.setattr(ranges, "SIZE", 5)
    started: list[Worker] = []
    start = Worker.start

    async def noted(orders: Orders) -> Worker:
        started.append(await start(orders))
        return started[-1]

    monkeypatch.setattr(Worker, "start", noted)
    async with running() as honest:
        log = Signed(honest.home, honest.server, honest.nc)
        await log.grow(40)
        await log.notary().step()
        report = await verify_log(log.nc, keys=log.keys, event_keys=KEYS)
        assert started
        assert report.ok
        assert report.events == report.proven == report.last
        assert not any(alive(worker.pid) for worker in started)
        # Their keys are those of the caller: with others, each event is forged.
        report = await verify_log(log.nc, keys=None, event_keys=STRANGERS)
        assert {finding.code for finding in report.findings} == {"forged"}
        async with Ranges(log.nc, KEYS, (), 100) as some:  # type: ignore[arg-type]
            for worker in started:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
            found = [sound async for sound in some.sound(0, report.last)]
        assert found[-1].last == report.last


async def test_a_large_answer_comes_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MOST_BYTES", 2000)
    async with running() as honest:
        log = Signed(honest.home, honest.server, honest.nc)
        await log.grow(30)
        last = await log.store.last_position()
        assert isinstance(log.nc, QuickClient)
        assert len(await bulk.get(log.nc, subjects.EVENTS, 1, 100, 5)) < last
        async with Ranges(log.nc, KEYS, (), last) as some:
            assert [sound.count async for sound in some.sound(0, last)] == [last]
