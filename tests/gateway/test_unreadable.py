"""What makes no sense and is stored nowhere is counted by source, and shown without a word of what it said."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.aio.msg import Msg

from gateway.monitoring import heartbeats, unreadable
from gateway.monitoring.heartbeats import Heartbeats
from gateway.monitoring.unreadable import Unreadable
from runtime import subjects
from runtime.bus.malformed import MOST_TEXT, Malformed
from tests.gateway.platform import Platform
from tests.waiting import eventually

#: What a body or a name may hold that is nobody's business.
SECRET = "planted5InWhatMakesNoSense"

BODIES = (b"\xff", b"[" * 5000, b"{}", json.dumps({SECRET: SECRET, "node": [SECRET], "args": SECRET}).encode())


async def counts(api: Platform) -> Mapping[str, int]:
    return {source: found["count"] for source, found in (await api.get("/healthz"))["malformed"].items()}


async def test_what_is_stored_nowhere_is_counted_by_source(api: Platform) -> None:
    before = await counts(api)
    nc = api.side.nc
    asked = {
        "heartbeats": subjects.heartbeat("host-1"),
        "commands": subjects.command("default", "vm", "create"),
        "cached-images": subjects.cached_images("host-1"),
        "registrations": subjects.register("host-1"),
    }
    for subject in asked.values():
        for body in BODIES:
            await nc.publish(subject, body, reply=nc.new_inbox())
    await nc.flush()

    async def counted() -> bool:
        now = await counts(api)
        return all(now.get(source, 0) == before.get(source, 0) + len(BODIES) for source in asked)

    await eventually(counted, "each is counted once")
    body = await api.get("/healthz")
    for source, subject in asked.items():
        assert body["malformed"][source]["last_subject"] == subject
        assert body["malformed"][source]["last_reason"]
        line = f'nebula_malformed_messages{{source="{source}"}} {before.get(source, 0) + len(BODIES)}.0'
        assert line in (await api.http.get("/metrics")).text
    assert SECRET not in json.dumps(body)
    assert body["commands"]["status"] == "ok"
    for source in asked.keys() - {"heartbeats"}:
        answer = json.loads((await nc.request(asked[source], b"{}", timeout=10)).data)
        assert answer["problem"]["code"] == "invalid_request", source


async def test_a_node_that_cannot_read_its_documents_shows(api: Platform) -> None:
    def beat(unread: int) -> bytes:
        said = {"node": "host-8", "at": datetime.now(UTC).isoformat(), "boot": "b", "wanted_position": 0, "lease": 1}
        return json.dumps({**said, "malformed": unread}).encode()

    async def shows(status: str, found: int) -> bool:
        body = await api.get("/healthz")
        return body["malformed"].get("wanted", {}).get("count", 0) == found and body["status"] in (status, "degraded")

    await api.side.nc.publish(subjects.heartbeat("host-8"), beat(3))
    await eventually(lambda: shows("degraded", 3), "degraded")
    assert "host-8" in (await api.get("/healthz"))["malformed"]["wanted"]["last_reason"]
    await api.side.nc.publish(subjects.heartbeat("host-8"), beat(0))
    await eventually(lambda: shows("ok", 0), "over")


def beat_of(subject: str, **more: Any) -> Msg:
    said = {"node": subject, "at": datetime.now(UTC).isoformat(), "boot": "b", "wanted_position": 0, "lease": 1, **more}
    return Msg(None, subject=subjects.heartbeat(subject), data=json.dumps(said).encode())  # type: ignore[arg-type]


async def test_nodes_that_are_heard_are_bounded_and_the_longest_silent_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "MOST_NODES", 3)
    heard = Heartbeats()
    daemon = {"boot": "b", "identity": "i", "host": "h", "pid": 1}
    for number in range(50):
        await heard._receive(beat_of("true"))
        await heard._receive(beat_of(f"made-up-{number}", malformed=1))
        await heard._receive(beat_of(f"waits-{number}", lease=0, daemon=daemon))
        await heard._receive(beat_of("evil", node=f"other-{number}"))
    assert heard.last_seen("true") is not None, "who speaks on stays"
    assert len(heard._seen) == len(heard._unread) == len(heard._caches) == 3
    assert len(heard._waiting) <= 3
    assert (found := heard.malformed.of("heartbeats")) is not None and found.count == 50


def test_counts_of_several_processes_are_added_and_bounded() -> None:
    def said(count: int, at: datetime) -> dict[str, Any]:
        return {"commands": {"count": count, "last_at": at, "last_subject": f"s{count}", "last_reason": "r"}}

    now, book, heard = datetime.now(UTC), Unreadable(), Heartbeats()
    book.note("one", said(3, now))
    book.note("two", said(4, now - timedelta(seconds=9)))
    book.note("one", said(5, now))
    assert (book.all(heard)["commands"].count, book.all(heard)["commands"].last_subject) == (9, "s5")
    for number in range(1000):
        book.note(f"p{number}", {})
    assert len(book._counts) == unreadable.MOST_PROCESSES
    many = {f"s{n}": said(1, now)["commands"] for n in range(99)}
    nonsense: object
    for nonsense in ([], "x", {"a": 1}, {"a": {"count": -1}}, many):
        with pytest.raises(ValueError):
            book.note("x", nonsense)


def test_what_is_kept_of_the_newest_is_short_and_printable() -> None:
    counted = Malformed()
    for _ in range(3):
        counted.note("commands", "x\x1b[2J\u202e" * 1000, "why\n" * 1000)
    found = counted.counts()["commands"]
    assert found["count"] == 3
    for text in (found["last_subject"], found["last_reason"]):
        assert len(text) == MOST_TEXT and text.isprintable()
