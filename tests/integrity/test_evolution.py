"""Types that are not known, and old shapes."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from domain import base
from domain.base import Event, Foreign
from eventstore.integrity.audit import verify_log
from eventstore.integrity.verify import Verifier
from eventstore.log import upcast
from eventstore.log.envelope import GENESIS, Context, Recorded, Ref, seal
from eventstore.log.follow import follow
from tests.integrity.logs import START, altered, running

REF = Ref("p", "vm", "v")


class Resized(Event):
    """In version 1 memory was in GiB, in version 2 there was no disk."""

    TOPIC = "test.Resized"
    VERSION: ClassVar[int] = 3
    memory_mib: int
    disk_gib: int


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(upcast, "_UPCASTERS", dict(upcast._UPCASTERS))
    monkeypatch.setitem(base._EVENT_TYPES, Resized.TOPIC, Resized)

    @upcast.upcaster(Resized.TOPIC, 1)
    def _(body: dict[str, Any]) -> dict[str, Any]:
        return {"memory_mib": body["memory_gib"] * 1024}

    @upcast.upcaster(Resized.TOPIC, 2)
    def _(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "disk_gib": 10}

    yield


def written(body: bytes, **headers: str) -> Recorded:
    made, _ = seal(REF, 1, GENESIS, Resized(memory_mib=1, disk_gib=1), Context(actor="a"))
    del made["ce-typeversion"]
    return altered(Recorded(1, REF.subject, made, body, START), **headers)


def test_old_shapes_are_made_new() -> None:
    new = Resized(memory_mib=2048, disk_gib=10)
    assert written(b'{"memory_gib":2}').event == new
    assert written(b'{"memory_mib":2048}', ce_typeversion="2").event == new
    assert written(b'{"memory_mib":2048,"disk_gib":10}', ce_typeversion="3").event == new


def test_what_is_stored_is_not_touched() -> None:
    recorded = written(b'{"memory_gib": 2}')
    before = recorded.digest
    assert recorded.event
    assert recorded.body == b'{"memory_gib": 2}'
    assert replace(recorded).digest == before


def test_version_is_written_from_the_second_on() -> None:
    headers, _ = seal(REF, 1, GENESIS, Resized(memory_mib=1, disk_gib=1), Context(actor="a"))
    assert headers["ce-typeversion"] == "3"
    from domain.tag import TagDeleted

    plain, _ = seal(REF, 1, GENESIS, TagDeleted(at=START, operation="o", fingerprint="f"), Context(actor="a"))
    assert "ce-typeversion" not in plain


def test_newer_than_this_program() -> None:
    event = written(b'{"memory_tib":2}', ce_typeversion="4").event
    assert event == Foreign(topic="test.Resized", body={"memory_tib": 2})


def test_a_missing_step_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(upcast._UPCASTERS, (Resized.TOPIC, 2))
    with pytest.raises(LookupError, match=r"version 2 of test\.Resized"):
        _ = written(b'{"memory_gib":2}').event
    verifier = Verifier("test")
    verifier.feed(written(b'{"memory_gib":2}'))
    assert [f.code for f in verifier.end().findings] == ["unreadable"]


def test_two_upcasters_of_one_step() -> None:
    with pytest.raises(TypeError):
        upcast.upcaster(Resized.TOPIC, 1)(lambda body: body)


def test_no_upcaster_is_missing() -> None:
    assert upcast.missing() == []


def test_a_foreign_body_may_be_anything() -> None:
    assert written(b"plain \xff", ce_type="acme.Said").event == Foreign(topic="acme.Said", body="plain \ufffd")


async def test_unknown_types_pass_through() -> None:
    body = b'[1, {"of": "others"}]'
    async with running() as log:
        await log.grow(3)
        made, _ = seal(REF, 1, GENESIS, Resized(memory_mib=1, disk_gib=1), Context(actor="a"))
        theirs = {**made, "ce-type": "acme.Painted"}
        await log.lay([Recorded(0, REF.subject, theirs, body, datetime.now(UTC))])
        there = (await log.all())[-1]
        assert there.event == Foreign(topic="acme.Painted", body=[1, {"of": "others"}])
        assert (there.body, dict(there.headers)) == (body, theirs)
        feed = follow(log.nc, there.position - 1, event_keys=None)
        assert (await anext(feed))[0].body == body
        await feed.aclose()
        assert (await verify_log(log.nc, keys=None, foreign=["acme.*"])).ok
        [finding] = (await verify_log(log.nc, keys=None)).findings
        assert (finding.code, finding.position) == ("type", there.position)


def test_a_type_is_known_to_whoever_has_imported_nothing_of_it() -> None:
    program = (
        "import sys\n"
        "from eventstore.log.upcast import opened\n"
        "assert 'domain.vm' not in sys.modules, 'this would prove nothing'\n"
        'body = b\'{"at": "2030-01-01T00:00:00Z", "node": "n", "sequence": 1, "cause": "guest"}\'\n'
        "print(type(opened({'ce-type': 'nebula.vm.VmStopped'}, body)).__name__)\n"
        "print(type(opened({'ce-type': 'nebula.vm.Unheard'}, body)).__name__)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["VmStopped", "Foreign"]
