"""A document that needs what its node does not know is refused in words, and everybody sees why."""

from pathlib import Path
from typing import Any

import pytest

from domain.contract import Introduction, NodeInfo
from node_daemon import plan
from node_daemon.files import identity
from node_daemon.simulated_host import SimulatedHost
from node_daemon.simulator import Simulator
from runtime.settings import NodeSettings
from tests.gateway.platform import VMS, Platform
from tests.handlers.platform import daemon
from tests.node_daemon.harness import Node
from tests.waiting import eventually


async def test_what_a_node_does_not_know_fails_the_operation(
    api: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "FEATURES", frozenset())  # a daemon of before there were watchdogs
    settings = NodeSettings(nats_url=api.side.nats.url, home=tmp_path, node="old", region="old")
    before = daemon("old").model_copy(update={"identity": identity(settings.data_dir)})  # a process on the same folder
    said = {"vcpus": 4, "memory_mib": 4096, "disk_gib": 100, "virt_type": "test", "version": "0"}
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
