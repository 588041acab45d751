"""What crosses the bus is judged on both sides: everything has a form, and a bound."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from domain.base import Message
from domain.contract import (
    CachedImages,
    Heartbeat,
    ImageSource,
    LeaseGranted,
    LeaseNote,
    NodeInfo,
    NodeReport,
    Wanted,
)
from tests.domain.story import uid

DIGEST = "0" * 64
NOW = "2026-01-01T00:00:00Z"
IMAGE = {
    "image": "base",
    "source": "/images/base",
    "sha256": DIGEST,
    "format": "raw",
    "size_bytes": 1,
    "virtual_size_bytes": 1,
}
WANTED = {
    "vm": uid(1),
    "project": "p",
    "name": "web",
    "node": "n1",
    "epoch": 1,
    "generation": 1,
    "desired": "on",
    "boots": 1,
    "vcpus": 1,
    "memory_mib": 64,
    "disk_gib": 1,
    "seed_url": "http://192.0.2.1/s/",
    "mac": "52:54:00:00:00:01",
}
REPORT = {"vm": uid(1), "node": "n1", "epoch": 1, "lease": 1, "sequence": 1, "at": NOW, "power": "on"}
INFO = {
    "node": "n1",
    "region": "r",
    "vcpus": 1,
    "memory_mib": 1,
    "disk_gib": 1,
    "virt_type": "kvm",
    "seed_url": "http://192.0.2.1/",
    "version": "1.0+x",
}
NOTE = {"node": "n1", "lease": 1, "boot": "b", "identity": "i"}
NUMBERS = (1.0, True, "1", float("nan"), float("inf"), 10**5000)
BEAT = {"node": "n1", "at": NOW, "boot": "b", "wanted_position": 1}

BAD: list[tuple[type[Message], dict[str, Any], str, Any]] = [
    (ImageSource, IMAGE, "sha256", "../../victim"),
    (ImageSource, IMAGE, "sha512", "../../victim"),
    (ImageSource, IMAGE, "image", "../x"),
    (ImageSource, IMAGE, "source", "file:///etc/shadow"),
    (ImageSource, IMAGE, "format", "vmdk"),
    (ImageSource, IMAGE, "size_bytes", 2**63),
    (Wanted, WANTED, "vm", "../../etc"),
    (Wanted, WANTED, "vm", uid(1) + "\n"),
    (Wanted, WANTED, "name", "a\nb"),
    (Wanted, WANTED, "mac", "52:54:00:00:00:01'/><x"),
    (Wanted, WANTED, "seed_url", "http://h/'\"/"),
    (Wanted, WANTED, "node", "n 1"),
    (Wanted, WANTED, "vcpus", -1),
    (Wanted, WANTED, "epoch", 2**31),
    (Wanted, WANTED, "features", ["x" * 65]),
    (NodeReport, REPORT, "sequence", 2**63),
    (NodeReport, REPORT, "sequence", -1),
    *((NodeReport, REPORT, field, value) for field in ("sequence", "lease", "epoch", "boots") for value in NUMBERS),
    (NodeReport, REPORT, "size", {"vcpus": True, "memory_mib": 1, "disk_gib": 1}),
    (NodeReport, REPORT, "size", {"vcpus": 1.0}),
    *((Wanted, WANTED, field, value) for field in ("generation", "disk", "vcpus") for value in NUMBERS),
    *((Wanted, WANTED, "vm", value) for value in (uid(1)[:-1] + "A", "{" + uid(1) + "}", uid(1).replace("-", ""))),
    (Heartbeat, BEAT, "node", "a.b"),
    (Heartbeat, BEAT, "node", "*"),
    (Heartbeat, BEAT, "lease", True),
    (Heartbeat, BEAT, "at", "NaN"),
    *((NodeInfo, INFO, "vcpus", value) for value in (1e9, 10**9, "4", True)),
    *((NodeInfo, INFO, "memory_mib", value) for value in (-1, 1.5, 2.0)),
    (NodeInfo, INFO, "seed_url", "http://user:secret@192.0.2.1/"),
    (NodeInfo, INFO, "seed_url", "http://192.0.2.1/\n"),
    (NodeInfo, INFO, "node", "n1.wanted"),
    (LeaseNote, NOTE, "lease", 0),
    (LeaseGranted, {"lease": 1}, "seconds", float("nan")),
    (NodeReport, REPORT, "boots", 2**31),
    (NodeReport, REPORT, "asked_boots", 2**70),
    (NodeReport, REPORT, "epoch", -1),
    (NodeReport, REPORT, "addresses", ["192.0.2.7"] * 65),
    (NodeReport, REPORT, "addresses", ["not an address"]),
    (NodeReport, REPORT, "size", {"vcpus": 2**62}),
    (NodeReport, REPORT, "error", {"code": "A b", "detail": "x"}),
    (Heartbeat, BEAT, "wanted_position", 2**63),
    (Heartbeat, BEAT, "orphans", [uid(1)] * 1001),
    (Heartbeat, BEAT, "boot", "b" * 65),
    (Heartbeat, BEAT, "image_cache", {"images": -1, "bytes": 1}),
    (NodeInfo, INFO, "seed_url", "http://evil/?a='"),
    (NodeInfo, INFO, "vcpus", 0),
    (NodeInfo, INFO, "memory_mib", 2**62),
    (NodeInfo, INFO, "version", "x" * 65),
    (CachedImages, {"node": "n1", "digests": []}, "digests", ["../x"]),
]


def shown(value: object) -> str:
    return "huge" if isinstance(value, int) and value > 2**64 else str(value)[:30]


@pytest.mark.parametrize(("kind", "good", "field", "value"), BAD, ids=shown)
def test_what_has_another_form_is_refused(kind: type[Message], good: dict[str, Any], field: str, value: Any) -> None:
    kind.model_validate(good)
    with pytest.raises(ValidationError, match=field):
        kind.model_validate({**good, field: value})
    if isinstance(value, int) and value > 2**64:
        return  # (Python writes no such number)
    with pytest.raises(ValidationError, match=field):
        kind.model_validate_json(json.dumps({**good, field: value}))


def test_texts_of_programs_are_made_fit() -> None:
    error = {"code": "start_failed", "detail": "a\0b\n" + "x" * 10_000}
    made = NodeReport.model_validate({**REPORT, "step": "image\x1b[2J" * 99, "error": error})
    assert made.error is not None and made.step is not None
    assert (len(made.error.detail), made.error.detail[:4]) == (2000, "a b ")
    assert len(made.step) == 100 and made.step.isprintable()
