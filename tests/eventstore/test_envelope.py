"""What stands in the log: CloudEvents in binary mode, a chain per aggregate, and nothing a caller can smuggle in."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from nats.aio.client import Client

from domain.base import Event, Foreign
from eventstore.log.digest import digest
from eventstore.log.envelope import GENESIS, Context, Recorded, seal
from eventstore.log.store import Change, EventStore, Tip
from runtime import subjects
from runtime.bus.header_text import decoded, encoded
from tests.eventstore.log import AT, append, broken_link, created, filled, ref, renamed


async def test_a_subscriber_in_any_language_needs_nothing_of_ours(nc: Client, store: EventStore) -> None:
    target = ref()
    context = Context("user:alice", "token:7", "request-1", "ignored", "cause-1", "00-0af7-b7ad-01")
    tip = await append(store, Tip(target), created(target, "é 雲"), context=context)
    raw = await nc.jetstream().get_msg(subjects.EVENTS, tip.position)
    assert raw.subject == f"nebula.events.{target.project}.project.{target.id}"
    assert raw.headers == {
        "ce-specversion": "1.0",
        "ce-id": f"project.{target.id}:1",
        "ce-type": "nebula.project.ProjectCreated",
        "ce-source": f"/projects/{target.project}/projects/{target.id}",
        "ce-time": "2026-01-01T12:00:00+00:00",
        "ce-aggregateversion": "1",
        "ce-prevhash": GENESIS,
        "ce-actor": "user:alice",
        "ce-credential": "token:7",
        "ce-requestid": "request-1",
        "ce-operationid": "o",
        "ce-causationid": "cause-1",
        "ce-traceparent": "00-0af7-b7ad-01",
        "content-type": "application/json",
        "Nats-Msg-Id": f"project.{target.id}:1",
        "Nats-Expected-Stream": "NEBULA_EVENTS",
        "Nats-Expected-Last-Subject-Sequence": "0",
    }
    assert json.loads(raw.data or b"")["name"] == "é 雲"


async def test_an_event_in_the_json_format(store: EventStore) -> None:
    target = await filled(store, 2)
    recorded = (await store.history(target))[1]
    made = recorded.cloud_event()
    assert made["specversion"] == "1.0"
    assert made["type"] == "nebula.project.ProjectRenamed"
    assert made["data"] == {"at": "2026-01-01T12:00:00Z", "operation": "o", "fingerprint": "f", "name": "2"}
    assert (made["position"], made["aggregateversion"], made["digest"]) == (recorded.position, 2, recorded.digest)
    assert recorded.time == AT


# ── the chain ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"vm": "470a7514-7fb0-4b68-8549-2c3d2e962ad7"}', True),  # 2e962 stands in it
        (b'{"digits": "' + b"1" * 400 + b'"}', True),
        (b'{"n": 1e100}', True),
        (b'{"n": 1e999}', False),
        (b'{"n": [{"m": -1e999}]}', False),
        (b'{"n": Infinity}', False),
    ],
)
def test_only_numbers_without_bound_are_not_shown(body: bytes, shown: bool) -> None:
    headers = {"ce-type": "t", "ce-aggregateversion": "1"}
    event = Recorded(1, subjects.event("p", "vm", "x"), headers, body, AT).cloud_event()
    assert ("data" in event, "data_base64" in event) == (shown, not shown)


async def test_each_event_seals_the_one_before(store: EventStore) -> None:
    history = await store.history(await filled(store, 20))
    assert broken_link(history) is None
    assert history[0].previous == GENESIS


Tamper = Any
CHANGED: dict[str, Tamper] = {
    "body": lambda r: dataclasses.replace(r, body=r.body.replace(b'"3"', b'"33"')),
    "actor": lambda r: dataclasses.replace(r, headers={**r.headers, "ce-actor": "mallory"}),
    "time": lambda r: dataclasses.replace(r, headers={**r.headers, "ce-time": "2025-01-01T00:00:00+00:00"}),
    "link": lambda r: dataclasses.replace(r, headers={**r.headers, "ce-prevhash": GENESIS}),
    "version": lambda r: dataclasses.replace(r, headers={**r.headers, "ce-aggregateversion": "4"}),
    "one header more": lambda r: dataclasses.replace(r, headers={**r.headers, "ce-extra": "x"}),
    "one header less": lambda r: dataclasses.replace(r, headers={k: v for k, v in r.headers.items() if k != "ce-id"}),
    "subject": lambda r: dataclasses.replace(r, subject=ref().subject),
}


@pytest.mark.parametrize("what", CHANGED)
async def test_an_event_that_was_changed_is_found_out(store: EventStore, what: str) -> None:
    history = await store.history(await filled(store, 5))
    tampered = CHANGED[what](history[2])
    assert tampered.digest != history[2].digest
    assert broken_link([*history[:2], tampered, *history[3:]]) in (3, 4)


async def test_an_event_that_was_dropped_or_moved_is_found_out(store: EventStore) -> None:
    one, two, three, four = await store.history(await filled(store, 4))
    assert broken_link([one, two, four]) == 3
    assert broken_link([one, three, two, four]) == 2
    assert broken_link([two, three]) == 1


async def test_the_position_is_not_part_of_the_digest(store: EventStore) -> None:
    """So that a log restored elsewhere proves the same."""
    one, *_ = await store.history(await filled(store, 1))
    assert dataclasses.replace(one, position=99).digest == one.digest
    assert digest(one.subject, {**one.headers, "Nats-Sequence": "99"}, one.body) == one.digest


# ── what callers say of themselves ──────────────────────────────────────────────────────────────────────────────────

FIELDS = [field.name for field in dataclasses.fields(Context)]
NASTY = [
    "eve\r\nce-actor: admin",
    "eve\nNats-Rollup: all",
    "eve\r\n\r\n{}",
    "\x00\x1b[31mred",
    "élan 雲",
    " spaces around ",
    "a\u2028b\x85c",
    "x" * 511 + " y",
    "tab\there",
    "a: b",
    "50%",
    "a%20b",
    'say "hi"',
]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("nasty", NASTY)
async def test_nothing_is_smuggled_into_the_headers(store: EventStore, field: str, nasty: str) -> None:
    target = ref()
    context = dataclasses.replace(Context(actor="a"), **{field: nasty})
    event = created(target).model_copy(update={"operation": nasty if field == "operation" else "o"})
    tip = await append(store, Tip(target), event, context=context)
    tip = await append(store, tip, renamed("next"))
    history = await store.history(target)
    kept = getattr(history[0].context, field)
    assert kept == nasty, "what was sent"
    assert all(value.isascii() and value.isprintable() for value in history[0].headers.values())
    assert history[0].cloud_event()[f"{field}id" if field in ("request", "operation", "causation") else field] == nasty
    assert set(history[0].headers) <= {*history[1].headers, "ce-credential", "ce-requestid", "ce-causationid"} | {
        "ce-traceparent"
    }
    assert broken_link(history) is None, "what is read back is what was sealed"


texts = st.one_of(st.none(), st.text(max_size=600), st.text(st.sampled_from(" \t\r\n:aé"), max_size=20))


@settings(max_examples=200, deadline=None)
@given(actor=st.text(max_size=40), credential=texts, request=texts, causation=texts)
def test_any_text_becomes_a_line_that_reads_back_as_itself(
    actor: str, credential: str | None, request: str | None, causation: str | None
) -> None:
    context = Context(actor, credential, request, None, causation)
    headers, body = seal(ref("p", "a"), 1, GENESIS, renamed("x"), context)
    read_back = Recorded(1, "s", headers, body, AT).context
    said = (actor or "?", credential or None, request or None, causation or None)
    assert (read_back.actor, read_back.credential, read_back.request, read_back.causation) == said
    for name, value in headers.items():
        assert value, name
        assert value == value.strip()
        assert value.isascii()
        assert value.isprintable()
    sent = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    read = dict(line.split(": ", 1) for line in sent.split("\r\n") if line)
    assert digest("s", read, body) == digest("s", headers, body)


@pytest.mark.parametrize(
    "written", ["jo doe", "50%", "a%4", "%41", "a%2", "%ff", 'say "hi"', "%C3", "plain", "a%c3%a9"]
)
def test_what_earlier_versions_wrote_is_taken_as_it_stands(written: str) -> None:
    """They encoded nothing: names with spaces and per cent signs stand in headers as they are."""
    assert decoded(written) == written
    recorded = Recorded(1, "s", {"ce-actor": written}, b"{}", AT)
    assert recorded.context.actor == written
    assert recorded.digest == digest("s", {"ce-actor": written}, b"{}")


def test_the_encoding_is_that_of_cloudevents() -> None:
    """https://github.com/cloudevents/spec, NATS binding, 3.1.3: UTF-8, percent-encoded, upper-case digits."""
    assert encoded("Euro € 😀 100%") == "Euro%20%E2%82%AC%20%F0%9F%98%80%20100%25"


# ── types ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class FromTheFuture(Event):
    TOPIC = "test.FromTheFuture"
    warp: int


async def test_a_type_that_nobody_knows_is_kept_as_it_is(store: EventStore) -> None:
    target = ref()
    tip = await append(store, Tip(target), created(target))
    await store.append([Change(tip, [FromTheFuture(warp=9)])], Context(actor="a"))
    recorded: Recorded = (await store.history(target))[1]
    assert recorded.event == FromTheFuture(warp=9)
    unknown = dataclasses.replace(recorded, headers={**recorded.headers, "ce-type": "test.Unknown"})
    assert unknown.event == Foreign(topic="test.Unknown", body={"warp": 9})
