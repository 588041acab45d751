"""What a daemon does not know, a kind or a need, it refuses in a report: nothing is ignored, and nothing half done."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.contract import WATCHDOG, Desired, Power, Wanted
from domain.contract.wanted import RESCUE
from node_daemon.reconcile import features
from node_daemon.reconcile.features import Refused, read, refusal
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from runtime import subjects
from runtime.local.servers import NatsServer
from tests.node_daemon.documents import NODE, new_vm, wanted
from tests.node_daemon.harness import Node, a_node, off, on
from tests.waiting import eventually

VM = "11111111-2222-4333-8444-555555555555"
LATER = {"features": ["hibernation"], "desired": "hibernated"}


def body(**changes: Any) -> bytes:
    return json.dumps({**wanted(VM).model_dump(mode="json"), **changes}).encode()


def document(kind: str, **changes: Any) -> bytes:
    return json.dumps({"kind": kind, "node": NODE, "epoch": 1, "generation": 1, "size_gib": 9, **changes}).encode()


@pytest.mark.parametrize(
    ("kind", "id_", "given", "lacks"),
    [
        ("vm", VM, body(**LATER), "hibernation"),
        ("vm", VM, body(features=[WATCHDOG, "tpm"], watchdog="debug"), "tpm"),
        ("vm", VM, document("vm", features=["confidential"]), "confidential"),
        ("volume", "v1", document("volume"), "volume"),
        ("network", "lan", document("network", features=["vxlan"]), "network"),
    ],
)
def test_what_a_daemon_is_too_old_for(kind: str, id_: str, given: bytes, lacks: str) -> None:
    found = read(NODE, kind, id_, given)
    assert isinstance(found, Refused)
    assert (found.kind, found.id, found.epoch, found.error.code) == (kind, id_, 1, "unsupported")
    assert lacks in found.error.detail and "upgrade" in found.error.detail


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("vm", b"no json"),
        ("vm", body(vcpus=-1)),
        ("vm", body(desired="hibernated", features=[WATCHDOG])),
        ("vm", body(node="other", **LATER)),
        ("vm", body(kind="volume", **LATER)),
        ("vm", body(vm=VM.replace("1", "2"))),
        ("volume", b"[]"),
        ("volume", document("network")),
        ("volume", document("volume", node="other")),
        ("volume", document("volume", epoch=-1)),
        ("volume", body()),
    ],
)
def test_what_makes_no_sense_to_any_daemon(kind: str, given: bytes) -> None:
    with pytest.raises(ValueError):
        read(NODE, kind, VM, given)


def test_a_document_of_an_earlier_version_names_neither_kind_nor_features() -> None:
    said = {name: value for name, value in json.loads(body()).items() if name not in ("kind", "features")}
    assert read(NODE, "vm", VM, json.dumps(said).encode()) == Wanted.model_validate_json(body())


def test_a_node_names_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert features.names() == (RESCUE, WATCHDOG)
    assert refusal("vm", ["watchdog"]) is None
    monkeypatch.setattr(features, "FEATURES", {"vm": frozenset({"tpm"}), "volume": frozenset({"luks"})})
    assert features.names() == ("luks", "tpm", "volume")


@pytest.fixture
async def node(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[Node]:
    async with a_node(tmp_path, nats_server.url, "test:///simulated") as made:
        yield made


async def publish(node: Node, kind: str, id_: str, said: dict[str, Any]) -> None:
    subject = subjects.wanted(node.settings.node, kind, id_)
    await node.client.jetstream().publish(subject, json.dumps(said).encode())


async def test_what_there_is_stays_as_it_is(node: Node) -> None:
    simulator = Simulator(SimulatedHost(node.settings.node))
    async with node.daemon(simulator) as daemon:
        vm = await node.create()
        await node.until(vm, on)
        known = json.loads(node.documents[vm].model_dump_json())
        await publish(node, "vm", vm, {**known, "generation": 2, "boots": 2, **LATER})
        refused = await node.until(vm, lambda report: report.error is not None and report.power is Power.ON)
        assert refused.error is not None and refused.error.code == "unsupported"
        assert "hibernation" in refused.error.detail and refused.desired is None
        assert (await simulator.look(vm)).boots == 1
        await eventually(lambda: daemon._lanes == {}, "nothing of the earlier document is done any more")
        assert daemon._pulse.orphans == ()

        await node.want(node.documents[vm].model_copy(update={"generation": 3, "desired": Desired.OFF}))
        stopped = await node.until(vm, off)
        assert stopped.error is None


async def test_a_kind_that_is_not_known(node: Node) -> None:
    async with node.daemon(Simulator(SimulatedHost(node.settings.node))) as daemon:
        name, id_ = node.settings.node, new_vm()
        said = {"kind": "volume", "node": name, "epoch": 7, "generation": 1}
        await publish(node, "volume", id_, said)
        await eventually(lambda: ("volume", id_) in node.refused, "it is refused")
        report = node.refused["volume", id_]
        assert (report.node, report.epoch, report.lease, report.error.code) == (name, 7, node.lease, "unsupported")
        assert "volume" in report.error.detail

        before = report.sequence
        daemon._reports.repeat()
        await eventually(lambda: node.refused["volume", id_].sequence > before, "it is told again")
        await node.client.jetstream().purge_stream(subjects.WANTED, subject=subjects.wanted(name, "volume", id_))
        await daemon._wanted.forget(lambda _: False)
        assert daemon._wanted.refused() == ()
        await eventually(lambda: not daemon._reports._newest, "nothing more is said of it")
