"""What handlers read as a report: of a VM, on the subject of its node, in any form that there was."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from domain.contract import NodeReport, Power, RefusedDocument
from handlers.nodes.reports import AnyReport, of_vm
from handlers.queues.queues import PoisonMessage
from runtime import subjects

VM = "11111111-2222-4333-8444-555555555555"
SUBJECT = subjects.report("n1", "vm", VM)
#: As nodes of earlier versions said it.
EARLIER: dict[str, Any] = {
    "vm": VM, "node": "n1", "epoch": 1, "sequence": 5, "at": "2026-11-27T08:00:00Z", "power": "on", "boots": 1,
    "addresses": ["192.168.122.9"], "step": None, "error": None,
}  # fmt: skip


REPORT: TypeAdapter[NodeReport | RefusedDocument] = TypeAdapter(AnyReport)


def read(subject: str, body: bytes) -> NodeReport:
    return of_vm(subject, REPORT.validate_json(body))


def said(**changes: Any) -> bytes:
    return json.dumps({**EARLIER, **changes}).encode()


def test_an_earlier_form() -> None:
    report = read(SUBJECT, said())
    assert (report.kind, report.vm, report.power, report.features, report.lease) == ("vm", VM, Power.ON, (), 0)
    assert read(SUBJECT, said(kind="vm", features=[])) == report


@pytest.mark.parametrize(
    ("subject", "body", "why"),
    [
        (SUBJECT, said(node="n2"), "claims to be of n2"),
        (SUBJECT, said(features=["snapshots"]), "it needs features that these handlers do not know: snapshots"),
        (subjects.report("n1", "vm", "other"), said(), "claims"),
        (SUBJECT, said(kind="vm", id=VM, vm=None, error={"code": "x", "detail": ""}), "node n1 refuses vm"),
        (subjects.report("n1", "volume", VM), said(), "claims"),
        (
            subjects.report("n1", "volume", "v1"),
            said(kind="volume", id="v1", error={"code": "unsupported", "detail": "knows no volumes"}),
            "node n1 refuses volume v1: unsupported: knows no volumes",
        ),
    ],
)
def test_what_is_parked(subject: str, body: bytes, why: str) -> None:
    with pytest.raises(PoisonMessage, match=why):
        read(subject, body)
