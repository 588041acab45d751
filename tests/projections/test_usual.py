"""Messages of the usual form get the item that a close look gives; those that a close look refuses get none."""

from itertools import combinations

import pytest

from eventstore.log.digest import digest
from eventstore.log.envelope import Ref
from eventstore.log.macs import MAC
from projections import preparing, usual
from projections.prepared import Item
from runtime import subjects
from runtime.bus.headers import header_block, parsed
from tests.event_keys import KEYS, STRANGERS

VM = Ref("p1", "vm", "4a5f1b7e-0d6c-4f7b-9a3e-2f9f6d8f0c11")
SUBJECTS = {
    "vm": VM,
    "node": Ref(subjects.SYSTEM, "node", "n1"),
    "image": Ref(subjects.SYSTEM, "image", "debian-12"),  # who may see it follows from its state
    "user": Ref(subjects.SYSTEM, "user", "u"),
    "foreign kind": Ref("p1", "thing", "t1"),
}
CHANGES: dict[str, dict[str, str | None]] = {
    "nothing": {},
    "no MAC": {MAC: None},
    "a wrong MAC": {MAC: STRANGERS.mac("0" * 64)},
    "no actor": {"ce-actor": None},
    "an encoded actor": {"ce-actor": "user:J%C3%BCrgen%20A"},
    "a quotation mark": {"ce-actor": 'user:"a"'},
    "a backslash": {"ce-actor": "user:a\\nb\\u0000"},
    "a long actor": {"ce-actor": "a" * 513},
    "a space": {"ce-actor": "user: a"},
    "not ASCII": {"ce-actor": "user:ü"},
    "no operation": {"ce-operationid": None},
    "an empty operation": {"ce-operationid": ""},
    "a long operation": {"ce-operationid": "o" * 600},
    "all of the context": {"ce-credential": "c", "ce-causationid": "x:1", "ce-traceparent": "00-1-2-01"},
    "other headers": {"X-Other%s": "a", "ce-custom": "b"},
    "a version of its type": {"ce-typeversion": "2"},
    "a wrong version of its type": {"ce-typeversion": "02"},
    "a time in the usual form": {"ce-time": "2026-01-31T12:00:00.120000+00:00"},
    "a time with zeros": {"ce-time": "2026-01-31T12:00:00.000000+00:00"},
    "a time with Z": {"ce-time": "2026-01-31T12:00:00Z"},
    "a time of another zone": {"ce-time": "2026-01-31T12:00:00+02:00"},
    "a time of a week": {"ce-time": "2026-W05-6T12:00:00+00:00"},
    "a time without a zone": {"ce-time": "2026-01-31T12:00:00"},
    "no time": {"ce-time": "yesterday"},
    "a year out of bounds": {"ce-time": "1969-12-31T23:59:59+00:00"},
    "another aggregate": {"ce-source": "/projects/p1/vms/other"},
    "another id": {"ce-id": "vm.other:3"},
    "a version of zero": {"ce-aggregateversion": "0"},
    "no digest before": {"ce-prevhash": "x" * 64},
    "no type": {"ce-type": None},
    "a long type": {"ce-type": "t" * 256},
    "restored": {"Nebula-Stored-At": "2020-01-01T00:00:00+00:00"},
    "another MIME type": {"content-type": "text/plain"},
}


@pytest.fixture(autouse=True)
def no_form_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many forms are kept, and other tests have seen some."""
    monkeypatch.setattr("runtime.bus.headers._usual_ones", {})


def message(ref: Ref, change: dict[str, str | None]) -> tuple[bytes, bytes]:
    """A message as a server sends it, with a MAC that is right unless the change has another one."""
    body = b'{"at":"2026-01-31T12:00:00Z","x":"\xc3\xbc\\u0000"}'
    own: dict[str, str | None] = {
        "ce-specversion": "1.0",
        "ce-id": f"{ref.kind}.{ref.id}:3",
        "ce-type": "nebula.vm.VmPaused",
        "ce-source": f"/projects/{ref.project}/{ref.kind}s/{ref.id}",
        "ce-time": "2026-01-31T12:00:00+00:00",
        "ce-aggregateversion": "3",
        "ce-actor": "user:somebody",
        "ce-prevhash": "a" * 64,
        "content-type": "application/json",
        "ce-requestid": "req-1",
        "ce-operationid": "op-1",
        **change,
    }
    headers = {name: value for name, value in own.items() if value is not None}
    subject = subjects.event(*ref)
    if MAC not in change:
        headers[MAC] = KEYS.mac(digest(subject, headers, body))
    stored = {
        "Nats-Stream": subjects.EVENTS,
        "Nats-Subject": subject,
        "Nats-Sequence": "17",
        "Nats-Time-Stamp": "2026-01-31T12:00:00.123456789Z",
    }
    block = header_block({**headers, **stored})
    assert block is not None
    return block, body


def closely(block: bytes, body: bytes, monkeypatch: pytest.MonkeyPatch) -> Item | None:
    with monkeypatch.context() as patched:
        patched.setattr(usual, "item", lambda *_: None)
        return preparing.item(block, body, KEYS)


@pytest.mark.parametrize("kind", SUBJECTS)
@pytest.mark.parametrize("name", CHANGES)
def test_the_item_is_that_of_a_close_look(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block, body = message(SUBJECTS[kind], CHANGES[name])
    expected = closely(block, body, monkeypatch)
    parsed(block)  # a form is usual from its second message on
    assert preparing.item(block, body, KEYS) == expected
    try:
        quick = usual.item(block, body, KEYS)
    except ValueError:
        quick = None
    assert quick in (None, expected)


@pytest.mark.parametrize(("one", "other"), [*combinations(CHANGES, 2)])
def test_two_changes_together(one: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block, body = message(VM, CHANGES[one] | CHANGES[other])
    expected = closely(block, body, monkeypatch)
    parsed(block)
    assert preparing.item(block, body, KEYS) == expected


def test_what_handlers_write_is_usual() -> None:
    for change in ("nothing", "no operation", "all of the context", "a version of its type"):
        block, body = message(VM, CHANGES[change])
        parsed(block)
        assert usual.item(block, body, KEYS) is not None
