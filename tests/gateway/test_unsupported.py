"""A document that needs what its node does not know is refused in words, and everybody sees why."""

from pathlib import Path
from typing import Any

import pytest

from domain.contract import Introduction, NodeInfo
from node_daemon.reconcile import features
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from node_daemon.storage.folder import identity
from runtime.settings import NodeSettings
from tests.gateway.platform import VMS, Platform
from tests.handlers.platform import daemon
from tests.node_daemon.harness import Node
from tests.waiting import eventually


async def test_what_a_node_does_not_know_fails_the_operation(
    api: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a node went back to a daemon of before there were watchdogs."""
    monkeypatch.setattr(features, "FEATURES", {"vm": frozenset()})
    settings = NodeSettings(nats_url=api.side.nats.url, home=tmp_path, node="old", region="old")
    before = daemon("old").model_copy(update={"identity": identity(settings.data_dir)})  # a process on the same folder
    said = {
        "vcpus": 4,
        "memory_mib": 4096,
        "disk_gib": 100,
        "virt_type": "test",
        "version": "0",
        "features": ["watchdog"],
    }
    info = NodeInfo.model_validate({"node": "old", "region": "old", "seed_url": "http://192.0.2.1:8775/", **said})
    assert "ok" in await api.side.register(Introduction(info=info, daemon=before))
    made = await api.create(region="old", watchdog="reset")
    wanted = await eventually(lambda: api.side.wanted(made["vm"]["id"]), "wanted document")
    assert wanted.features == ("watchdog",)

    simulator = Simulator(SimulatedHost("old"))
    async with Node(tmp_path, settings, api.side.nc).daemon(simulator):

        async def ended() -> Any:
            found = await api.get(f"/v1/operations/{made['operation']['id']}")
            return found if found["ended_at"] is not None else None

        operation = await eventually(ended, "the operation has ended")
    unknown = "does not know watchdog"
    assert (operation["status"], operation["problem"]["code"]) == ("failed", "unsupported")
    assert unknown in operation["problem"]["detail"]
    vm = await api.get(f"{VMS}/{wanted.vm}?min_position={operation['position']}")
    assert (vm["phase"], vm["failure"]["code"]) == ("failed", "unsupported")
    assert unknown in vm["failure"]["detail"] and "upgrade" in vm["failure"]["detail"]
    assert await simulator.domains() == {}


async def test_a_vm_goes_to_a_node_that_knows_what_it_needs(api: Platform) -> None:
    """Where none does, the create says so, and goes on once one was upgraded."""
    await api.side.node("b-old", region="mixed", features=())
    made = await api.create(region="mixed", watchdog="reset")
    vm = made["vm"]["id"]
    await eventually(lambda: api.side.has("default", "vm", vm, "VmUnschedulable"), "no node can take it")
    waits = await api.get(f"{VMS}/{vm}?min_position={(await api.side.events('default', 'vm', vm))[-1].position}")
    assert waits["phase"] == "unschedulable"
    reasons = {each["node"]: each["reason"] for each in waits["considered"]}
    assert reasons["b-old"] == "does not know watchdog: its daemon is older"

    await api.side.node("b-old", region="mixed")
    await eventually(lambda: api.side.has("default", "vm", vm, "VmScheduled"), "the upgraded node takes it")
    wanted = await eventually(lambda: api.side.wanted(vm), "wanted document")
    assert (wanted.node, wanted.features) == ("b-old", ("watchdog",))


async def test_a_vm_stays_free_of_what_its_node_does_not_know(api: Platform) -> None:
    await api.side.node("c-old", region="stays", features=())
    made = await api.running(region="stays")
    vm = f"{VMS}/{made['vm']['id']}"
    refused = await api.call("PATCH", vm, {"watchdog": "poweroff", "description": "x"})
    assert refused.status_code == 409
    problem = refused.json()
    assert (problem["code"], problem["errors"][0]["field"]) == ("unsupported", "watchdog")
    assert "node c-old does not know watchdog" in problem["detail"] and "upgrade" in problem["detail"]
    for fine in ({"watchdog": "disabled"}, {"description": "x"}):
        assert (await api.call("PATCH", vm, fine)).status_code == 202

    await api.side.node("c-old", region="stays")
    assert (await api.call("PATCH", vm, {"watchdog": "poweroff"})).status_code == 202
