"""The daemon on a simulated host where everything goes wrong for a while, by a seed; and then nothing any more."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.contract import Desired, Power
from node_daemon.hypervisor.faults import Faulty
from node_daemon.reconcile.plan import LIVE, Host
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulated_storage import SimulatedDisks, SimulatedImages
from node_daemon.simulation.simulator import Call, Simulator
from runtime.local.servers import NatsServer
from runtime.settings import FaultRates, Latencies
from tests.node_daemon.harness import Node, a_node
from tests.waiting import eventually

VMS, TURNS = 8, 80
DEADLINE = 0.1
SECONDS = Latencies(call=0.002, image=0.05, boot=0.1, lease=0.05, shutdown=0.05, memory=0.05)
TROUBLE = FaultRates(refused=0.05, hang=0.03)
ALIVE = (Desired.ON, Desired.PAUSED, Desired.SUSPENDED)


class Trial:
    """A simulated host, its daemon, and what is wanted of it."""

    def __init__(self, node: Node, folder: Path, seed: int) -> None:
        self.node = node
        self.random = random.Random(seed)
        self.calls: list[Call] = []
        self.crimes: list[object] = []
        self.host_store = HostStore(folder / "hosts.sqlite")
        self.start_host()
        self.stack = AsyncExitStack()

    def start_host(self) -> None:
        """The simulator, as the host_store remembers it."""
        self.simulator = Simulator(SimulatedHost("n1", self.host_store), seconds=SECONDS, on_call=self.judge)
        self.images = SimulatedImages("n1", self.host_store, SECONDS.image)
        self.disks = SimulatedDisks("n1", self.host_store)
        self.way = Faulty(self.simulator, TROUBLE, DEADLINE, self.random.random())

    async def start_daemon(self) -> None:
        host = Host(self.simulator.host.boot_id)
        await self.stack.enter_async_context(self.node.daemon(self.way, self.images, self.disks, host))

    async def kill(self) -> None:
        """The daemon dies; what hangs in the hypervisor dies with it here, or happened before."""
        await self.stack.aclose()
        await self.way.close()

    async def kill_all(self) -> None:
        """The process dies, with the simulator in it."""
        await self.kill()
        self.simulator.host.close()
        self.start_host()

    def judge(self, call: Call) -> None:
        """Domains that run end for a tombstone, a wish to be off, or a higher count of boots; for nothing else."""
        self.calls.append(call)
        want, before = self.node.documents[call.vm], call.before
        ends = call.method in ("destroy", "shutdown", "discard") and before.power in LIVE and not before.remains
        if ends and want.desired not in (Desired.OFF, Desired.ABSENT) and before.boots >= want.boots:
            self.crimes.append((call, want))
        if call.method == "undefine" and want.desired is not Desired.ABSENT:
            self.crimes.append((call, want))

    async def turn(self) -> None:
        """One thing happens."""
        vm = self.random.choice(list(self.node.documents))
        grace = self.random.choice([None, timedelta(seconds=-1), timedelta(seconds=0.5), timedelta(seconds=5)])
        force_after = None if grace is None else datetime.now(UTC) + grace
        want = self.node.documents[vm]
        often = ["boot", "boot", "stop", "pause", "suspend", "resume", "delete", "guest", "die"]
        match self.random.choice(often * 2 + ["vanish", "reboot", "away"]):
            case "boot" if want.desired is not Desired.ABSENT:
                await self.node.change(vm, desired=Desired.ON, boots=want.boots + 1, force_after=force_after)
            case "stop" if want.desired in ALIVE:
                await self.node.change(vm, desired=Desired.OFF, force_after=force_after)
            case "pause" if want.desired is Desired.ON:
                await self.node.change(vm, desired=Desired.PAUSED)
            case "suspend" if want.desired in (Desired.ON, Desired.PAUSED):
                await self.node.change(vm, desired=Desired.SUSPENDED)
            case "resume" if want.desired in ALIVE:
                await self.node.change(vm, desired=Desired.ON, resume=True)
            case "delete":
                await self.node.change(vm, desired=Desired.ABSENT)
                await self.node.create()
            case "guest":
                host = self.simulator.host
                self.random.choice([host.crash, host.power_off, host.stall, host.leave_memory])(vm)
            case "vanish":
                self.simulator.host.vanish(vm)
            case "die":
                await self.random.choice([self.kill, self.kill_all])()
                await self.start_daemon()
            case "reboot":
                await self.kill()
                self.simulator.host.reboot()
                await self.start_daemon()
            case "away":
                async with self.way.outage():
                    self.simulator.host.restart()
                    await asyncio.sleep(self.random.uniform(0, 0.3))
        await asyncio.sleep(self.random.uniform(0, 0.05))

    async def as_wanted(self) -> bool:
        """Whether there is what is wanted and nothing else, and the reports say so."""
        found = dict(await self.simulator.domains())
        for vm, want in self.node.documents.items():
            have, told = found.pop(vm, None), self.node.reports[vm][-1] if self.node.reports.get(vm) else None
            power = have.power if have else Power.ABSENT
            if told is None or told.power is not power or told.step is not None:
                return False
            match want.desired:
                case Desired.ON:
                    # a guest that ended by itself stays off
                    fine = power in (Power.ON, Power.OFF) and have is not None and have.persistent
                    fine = fine and have is not None and have.boots == want.boots
                case Desired.PAUSED:
                    fine = power in (Power.PAUSED, Power.OFF, Power.ABSENT)
                case Desired.SUSPENDED:
                    fine = power in (Power.SUSPENDED, Power.OFF, Power.ABSENT)
                case Desired.OFF:
                    fine = power in (Power.OFF, Power.ABSENT)
                case Desired.ABSENT:
                    fine = have is None and not self.disks.has_files(vm)
            if not fine:
                return False
        return not found


@pytest.fixture
async def node(servers_home: Path, nats_server: NatsServer) -> AsyncIterator[Node]:
    async with a_node(
        servers_home, nats_server.url, "test:///simulated", libvirt_deadline=DEADLINE, disk_gib=100
    ) as node:
        yield node


@pytest.fixture
async def trial(node: Node, tmp_path: Path, seed: int) -> AsyncIterator[Trial]:
    trial = Trial(node, tmp_path, seed)
    yield trial
    await trial.kill()
    trial.simulator.host.close()


@pytest.mark.parametrize("seed", range(5))
async def test_after_trouble_it_is_as_wanted(node: Node, trial: Trial, seed: int) -> None:
    for _ in range(VMS):
        await node.create()
    await trial.start_daemon()
    for _ in range(TURNS):
        await trial.turn()
    trial.way.rates = FaultRates()
    if seed % 2:  # half of the time the daemon has to get out of what it remembers
        await trial.kill()
        await trial.start_daemon()
    for vm, want in list(node.documents.items()):
        if want.desired is Desired.ON:  # what failed for good is tried again when somebody asks
            await node.change(vm, boots=want.boots + 1, resume=True)
    await eventually(trial.as_wanted, "all is as wanted")
    for vm in list(node.documents):
        await node.change(vm, desired=Desired.ABSENT)
    await eventually(trial.as_wanted, "all is gone")
    assert await trial.simulator.domains() == {}
    assert trial.disks.all() == {}
    assert trial.crimes == []
    assert {call.method for call in trial.calls} >= {"start", "persist", "destroy", "undefine"}
