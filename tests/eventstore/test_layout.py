"""What is kept of the names of headers, which anybody may have written."""

import hashlib

import pytest

from eventstore.log import layout as layouts
from eventstore.log.digest import digest
from eventstore.log.layout import layout
from eventstore.log.received import own


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], layouts.Layout]:
    found: dict[tuple[str, ...], layouts.Layout] = {}
    monkeypatch.setattr(layouts, "_layouts", found)
    return found


@pytest.mark.parametrize(
    "headers", [{}, {"ce-a": "1"}, {"ce-b%s": "%d", "x": "2", "ce-a%": "%"}, {"ce-z": "", "ce-y": "é"}]
)
def test_a_digest_is_of_sorted_lines(headers: dict[str, str]) -> None:
    lines = ["a.b", *[f"{name}: {headers[name]}" for name in sorted(headers) if name.startswith("ce-")], "", "body"]
    assert digest("a.b", headers, b"body") == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_a_digest_is_what_earlier_versions_stored() -> None:
    headers = {"content-type": "application/json", "ce-type": "t", "ce-id": "1"}
    stored = "b946209795caefc2e0bba60ef6feefa3bf5708bc3bf80c7d299a9c5a8a5efa3e"
    assert digest("a.b", headers, b"{}") == stored


def test_what_speaks_of_storage_is_not_the_messages_own() -> None:
    headers = {"ce-id": "1", "Nats-Msg-Id": "1", "Nebula-Stored-At": "t", "Nats-New": "x", "nats-x": "y"}
    assert own(headers) == {"ce-id": "1", "nats-x": "y"}
    assert own({}) == {}


def test_many_names_and_long_ones_are_not_kept(kept: dict[tuple[str, ...], layouts.Layout]) -> None:
    for number in range(1000):
        layout((f"ce-{number}", "x"))
    assert len(kept) <= 256
    kept.clear()
    assert layout(("ce-" + "x" * 10_000,)).digested
    assert not kept
