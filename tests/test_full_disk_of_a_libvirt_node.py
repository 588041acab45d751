"""A node on libvirt whose disk is full, from command to domain: the VM says so, and starts once there is room."""

import asyncio
import contextlib
import uuid
from pathlib import Path

from domain.contract import Power
from domain.vm import VmFailed
from eventstore.log.envelope import Ref
from node_daemon import main
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from runtime.settings import NodeSettings
from tests.handlers.platform import write_side
from tests.node_daemon.harness import URI
from tests.small_disk import fill, mounted, needs_root
from tests.waiting import eventually

pytestmark = needs_root


async def test_a_vm_that_finds_no_room_says_so_and_starts_by_itself_once_there_is_some(open_folder: Path) -> None:
    home = open_folder / "handlers"
    home.mkdir(mode=0o755)
    async with write_side(home, NEBULA_NODE_TIMEOUT="60") as side:
        with mounted(open_folder / "node", 64) as small:
            settings = NodeSettings(
                home=small,
                nats_url=side.nats.url,
                node="n1",
                libvirt_uri=URI,
                image_paths=str(home),
                heartbeat_seconds=0.2,
                disk_gib=10,
            )
            vm = str(uuid.uuid4())
            hypervisor = LibvirtHypervisor(URI, "default", "test", deadline=60)
            await side.start()
            await side.cloud()
            serving = asyncio.create_task(main.serve(settings, hypervisor))
            try:
                await eventually(lambda: side.has("system", "node", "n1", "NodeLeased"), "the node registers")
                fill(small / "ballast")
                await side.create(vm, spec={"vcpus": 1, "memory_mib": 64, "disk_gib": 1})
                await eventually(lambda: side.has("default", "vm", vm, "VmFailed"), "it finds no room")
                events = [each.event for each in await side.store.history(Ref("default", "vm", vm))]
                failures = [event for event in events if isinstance(event, VmFailed)]
                assert {failure.code for failure in failures} == {"disk_full"}
                assert "the node's disk" in failures[0].detail
                assert failures[0].detail.endswith("; it is started again automatically once there is room")
                (small / "ballast").unlink()
                await eventually(lambda: side.has("default", "vm", vm, "VmStarted"), "it goes on by itself")
                assert (await hypervisor.look(vm)).power is Power.ON
            finally:
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await serving
                if (await hypervisor.look(vm)).domain:
                    await hypervisor.destroy(vm)
                    await hypervisor.undefine(vm)
                hypervisor.close()
