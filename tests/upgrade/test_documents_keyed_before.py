"""Documents and reports of version 10b4582, which were keyed by VM alone: no VM is touched by the upgrade."""

import json
import time
from pathlib import Path
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import StorageType, StreamConfig

from domain.contract import NOWHERE, Power, Wanted
from handlers.managers.wanted import same
from node_daemon.hypervisor.domain_xml import Tag, domain_name
from node_daemon.reconcile.host import this_host
from node_daemon.simulation.simulated_host import Domain, Run, SimulatedHost
from node_daemon.simulation.simulator import Simulator
from runtime import subjects
from runtime.bus.streams import ensure_all
from runtime.local.servers import start_nats
from tests.eventstore.log import connection
from tests.node_daemon.documents import mac_of, new_vm, wanted
from tests.node_daemon.harness import a_node, on
from tests.waiting import eventually

#: What that version's documents said.
FIELDS = (
    "vm", "project", "name", "node", "epoch", "generation", "desired", "boots", "force_after", "resume", "vcpus",
    "memory_mib", "disk_gib", "disk", "disk_made", "image", "seed_url", "mac",
)  # fmt: skip

KEYED = {subjects.WANTED: subjects.wanted_of(), subjects.REPORTS: subjects.REPORTS_OF_ALL}


def earlier(document: Wanted) -> dict[str, Any]:
    said = document.model_dump(mode="json")
    return {name: said[name] for name in FIELDS}


async def streams_of_then(js: JetStreamContext) -> None:
    for name, what in ((subjects.WANTED, "wanted"), (subjects.REPORTS, "reports")):
        config = StreamConfig(
            name=name,
            subjects=[f"nebula.nodes.*.{what}.*"],
            storage=StorageType.FILE,
            max_msgs_per_subject=1,
            allow_direct=True,
        )
        await js.add_stream(config)


async def test_an_upgrade_touches_no_vm(tmp_path: Path) -> None:
    server = await start_nats(tmp_path)
    try:
        async with connection(server.url) as nc:
            js = nc.jetstream()
            await streams_of_then(js)
            await js.publish("nebula.nodes.n1.wanted.v1", json.dumps(earlier(wanted(new_vm()))).encode())
            await js.publish("nebula.nodes.n1.reports.v1", b"{}")

            await ensure_all(js, 1)  # as new handlers begin
            for name in (subjects.WANTED, subjects.REPORTS):
                info = await js.stream_info(name)
                assert (info.state.messages, info.config.subjects) == (0, [KEYED[name]])

            async with a_node(tmp_path, server.url, "test:///simulated") as node:
                vm, now = new_vm(), time.time()
                tag = Tag(boots=3, epoch=2, generation=9, host_boot=this_host().boot_id, place=NOWHERE)
                run = Run(tag=tag, mac=mac_of(vm), seed_url="http://192.0.2.1/x/", up_at=now, leased_at=now)
                host = SimulatedHost(node.settings.node)
                host.put(Domain(vm, domain_name(vm), run=run, kept=tag))
                async with node.daemon(Simulator(host)) as daemon:  # before handlers have written anything
                    await eventually(lambda: daemon._pulse.orphans == (vm,), "the guest is seen, and left alone")
                    document = wanted(vm, node=node.settings.node, boots=3, epoch=2, generation=9, disk_made=1)
                    assert same(document, Wanted.model_validate(earlier(document)))
                    await node.want(document)
                    report = await node.until(vm, on)
                    assert (report.kind, report.boots, report.error) == ("vm", 3, None)
                    await eventually(lambda: daemon._pulse.orphans == (), "it is wanted again")
                found = host.ours(vm)
                assert found is not None and found.run == run and found.kept == tag
                assert {each.power for each in node.reports[vm]} == {Power.ON}
    finally:
        await server.stop()
