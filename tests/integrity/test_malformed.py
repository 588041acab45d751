"""A log that holds messages which are no events: every reader leaves them out, and none stops at them."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies as st
from pydantic import TypeAdapter

from domain import image, node, project, tag, vm
from domain.kinds import NAMES
from eventstore.integrity import transfer
from eventstore.integrity.archive import verify_file
from eventstore.integrity.audit import verify_log
from eventstore.integrity.verify import Verifier
from eventstore.log.envelope import Recorded, Ref, seal
from eventstore.log.follow import follow
from eventstore.log.judge import Malformed, Tip, judge, step
from eventstore.log.store import Change, EventStore, events_of
from eventstore.log.upcast import all_types
from gateway.events import audit
from gateway.events.audit import EventView
from handlers.world.world import World
from projections import books, events
from runtime import subjects
from runtime.bus.quick_client import QuickClient
from tests.integrity.logs import CONTEXT, START, Log, example, running
from tests.integrity.malformed import lay, strays

EVENT: TypeAdapter[EventView] = TypeAdapter(EventView)
LIVING, COMING = Ref("p", "project", "p"), Ref("q", "project", "q")


@asynccontextmanager
async def quick(url: str) -> AsyncIterator[QuickClient]:
    """A connection as all roles have it."""
    nc = QuickClient()
    await nc.connect(url)
    yield nc
    await nc.close()


async def spoil(log: Log, nc: QuickClient) -> set[int]:
    """Put everything there is on the subjects of a project that lives and of one that is not there yet."""
    store = EventStore(nc)
    created = [example(LIVING, 0, 1), example(LIVING, 1, 2)]
    tips = {LIVING: Tip(LIVING), COMING: Tip(COMING)}
    for recorded in await store.append([Change(Tip(LIVING), created)], CONTEXT):
        tips[LIVING] = tips[LIVING].after(recorded)
    before = await store.last_position()
    for ref, tip in tips.items():
        for stray in strays(ref, tip, example(ref, tip.version, 3)).values():
            await lay(nc, ref.subject.encode(), stray)
    for subject in (
        b"nebula.events.\xff.vm.x",
        b"nebula.events.a.b.c",
        b"nebula.events.system.node.\x01",
        b"nebula.events.a.vm.$",
    ):
        await lay(nc, subject, next(iter(strays(LIVING, Tip(LIVING), created[0]).values())))
    return set(range(before + 1, await store.last_position() + 1))


async def test_what_follows_a_malformed_message_is_stored_and_read(tmp_path: Path) -> None:
    async with running() as log, quick(log.server.url) as nc:
        store = EventStore(nc)
        strange = await spoil(log, nc)
        assert len(strange) > 55
        for ref, version in ((LIVING, 2), (COMING, 0)):
            loaded = await store.load(ref, project.evolve)
            assert (loaded.tip.version, loaded.tip.position in strange) == (version, True)
            [appended] = await store.append([Change(loaded.tip, [example(ref, version, 9)])], CONTEXT)
            again = await store.load(ref, project.evolve)
            assert again.tip == loaded.tip.after(appended)
            assert [r.version for r in await store.history(ref)] == list(range(1, version + 2))
        world, seen = World(), 0
        async for batch in follow(nc, 0, event_keys=None):
            for recorded in batch:
                assert (world.take(recorded) is not None) == (recorded.position in strange), recorded
                events.row(recorded)
                shown = EVENT.validate_python(audit.shown(recorded), strict=True)
                json.dumps(shown, allow_nan=False)
            seen = batch[-1].position
            if seen == await store.last_position():
                break
        assert {p.id for p in world.projects()} == {"p", "q"}
        report = await verify_log(nc, keys=None)
        assert {finding.message for finding in report.findings} == strange


async def test_a_log_with_malformed_messages_moves_to_another_server(tmp_path: Path) -> None:
    first, second, part = tmp_path / "first", tmp_path / "second", tmp_path / "part"
    async with running() as log, running() as empty, quick(log.server.url) as nc, quick(empty.server.url) as there:
        strange = await spoil(log, nc)
        store = EventStore(nc)
        loaded = await store.load(LIVING, project.evolve)
        await store.append([Change(loaded.tip, [example(LIVING, 2, 9)])], CONTEXT)
        assert await log.notary().step() is not None
        with first.open("wb") as file:
            await transfer.export(nc, file)
        found = verify_file(first, keys=log.keys)
        assert {finding.message for finding in found.findings} == strange
        assert not found.ok
        assert found.genuine
        report = await transfer.restore(there, first, keys=log.keys)
        assert report.last == await EventStore(there).last_position()
        with second.open("wb") as file:
            await transfer.export(there, file)
        assert second.read_bytes() == first.read_bytes()
        assert await stored_bytes(there) == await stored_bytes(nc)
        with part.open("wb") as file:  # it begins among the malformed ones of a project that goes on
            await transfer.export(nc, file, after=min(strange) + 3)
        rest = {position for position in strange if position > min(strange) + 3}
        assert {finding.message for finding in verify_file(part, keys=log.keys).findings} == rest


async def stored_bytes(nc: QuickClient) -> list[tuple[str, bytes, bytes]]:
    """Subject, own header lines and body of each message as the server has it."""
    found = []
    for position in range(1, await EventStore(nc).last_position() + 1):
        ask = json.dumps({"seq": position}).encode()
        message = json.loads((await nc.request(f"$JS.API.STREAM.MSG.GET.{subjects.EVENTS}", ask)).data)["message"]
        lines = base64.b64decode(message.get("hdrs", "")).split(b"\r\n")
        own = [line for line in lines if line and not line.startswith((b"Nats-", b"Nebula-Stored-At:"))]
        bare = [line for line in own if line != b"NATS/1.0"]
        found.append((message["subject"], b"\n".join(bare), base64.b64decode(message.get("data", ""))))
    return found


# ── any bytes at all ────────────────────────────────────────────────────────────────────────────────────────────────

EVOLVE: dict[str, Any] = {
    "vm": vm.evolve,
    "node": node.evolve,
    "image": image.evolve,
    "project": project.evolve,
    "tag": tag.evolve,
}
TOKENS = st.sampled_from([*NAMES, "system", "p", "é", "", "a b", "\ud7ff"]) | st.text(max_size=5).map(
    lambda text: text.replace(".", "")
)
TYPES = st.sampled_from(sorted(all_types())) | st.text(max_size=9)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "ce-specversion": st.just("1.0") | st.text(max_size=4),
        "ce-type": TYPES,
        "ce-aggregateversion": st.sampled_from(["1", "2", "0", "-1", "9" * 30, "1.0", "٣"]) | st.text(max_size=3),
        "ce-prevhash": st.just("0" * 64) | st.text(max_size=4),
        "ce-time": st.sampled_from(["2026-01-01T00:00:00+00:00", "0001-01-01T00:00:00+23:59", "x"])
        | st.text(max_size=9),
        "ce-typeversion": st.text(max_size=3),
        "ce-operationid": st.text(max_size=9),
        "ce-actor": st.text(max_size=9),
        "ce-id": st.text(max_size=9),
        "ce-source": st.text(max_size=9),
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(TOKENS, TOKENS, TOKENS, HEADERS, st.booleans(), JSON | st.binary(max_size=30)), max_size=6))
def test_no_message_stops_a_reader(messages: list[tuple[str, str, str, dict[str, str], bool, bytes]]) -> None:
    world, verifier, audited = World(), Verifier("x"), books.Books()
    for position, (owner, kind, id_, headers, right, body) in enumerate(messages, start=1):
        if right:  # a message that fits, up to its body
            headers |= {"ce-specversion": "1.0", "ce-aggregateversion": "1", "ce-prevhash": "0" * 64}
            headers |= {"ce-id": f"{kind}.{id_}:1", "ce-source": f"/projects/{owner}/{kind}s/{id_}"}
            headers["ce-time"] = "2026-01-01T00:00:00+00:00"
        recorded = Recorded(position, f"nebula.events.{owner}.{kind}.{id_}", headers, body, START)
        world.take(recorded)
        verifier.feed(recorded)
        events.row(recorded)
        shown = EVENT.validate_python(audit.shown(recorded), strict=True)
        json.dumps(shown, allow_nan=False).encode()
        events_of(recorded.ref, [recorded])
        audited.apply(*books.judged(recorded))
        assert len(audited.held["events"]) == position  # every message is audited
        if kind in EVOLVE:
            step(EVOLVE[kind], None, Tip(recorded.ref), recorded)
    verifier.end()


def test_an_event_that_fits_is_no_fault() -> None:
    tip = Tip(LIVING)
    for number in range(3):
        event = example(LIVING, tip.version, number)
        recorded = Recorded(
            number + 1, LIVING.subject, *seal(LIVING, tip.version + 1, tip.digest, event, CONTEXT), START
        )
        said = {"created_by": CONTEXT.actor} if "created_by" in type(event).model_fields else {}
        assert judge(recorded, tip) == event.model_copy(update=said), "who made it is what the header says"
        assert isinstance(judge(recorded, tip.past(recorded)), type(event))
        assert isinstance(judge(recorded, tip.after(recorded)), Malformed)
        tip = tip.after(recorded)
