"""The daemon, or libvirtd, is killed before and after every act of every operation: what was begun is finished.

One death is many: each VM has been brought to another act when the process is killed. What there is in the end is what
there is without a death, and no guest was started, stopped, paused or thrown away once more because of it.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from domain.contract import Desired, Power
from node_daemon.hypervisor.domain_xml import domain_name
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from runtime.local.libvirtd import Libvirt
from runtime.local.servers import NatsServer
from tests.node_daemon.acts import ON_DOMAINS, Acting, Acts, Stop
from tests.node_daemon.data_source import a_data_source
from tests.node_daemon.documents import new_vm
from tests.node_daemon.harness import a_node
from tests.node_daemon.own_libvirt import OwnLibvirt, own_libvirt
from tests.node_daemon.sites import Change, Left, OnQemu, Simulated, Site
from tests.waiting import eventually

ON, OFF, ABSENT = {"desired": Desired.ON}, {"desired": Desired.OFF}, {"desired": Desired.ABSENT}
PAUSED, SUSPENDED = {"desired": Desired.PAUSED}, {"desired": Desired.SUSPENDED}
GENTLY = {"force_after": timedelta(minutes=5)}
RESUME = {**ON, "resume": True}
RESTART = {**ON, "boots": 2}
SEEDED = {**ON, "seed": True}
REBUILD = {**RESTART, "disk": 2}
RESCUE = {**RESTART, "rescue": 2}
UNRESCUE = {**ON, "boots": 3, "rescue": None}
LARGER = {**RESTART, "vcpus": 2, "memory_mib": 128, "disk_gib": 2}

#: What is wanted of a VM, one after the other. The daemon dies while it follows the last.
LIVES: Mapping[str, tuple[Change, ...]] = {
    "create": (ON,),
    "stop": (ON, OFF | GENTLY),
    "stop by force": (ON, OFF),
    "rebuild": (ON, REBUILD),
    "delete": (ON, ABSENT),
}
MORE_LIVES: Mapping[str, tuple[Change, ...]] = {
    **LIVES,
    "create with a seed disk": (SEEDED,),
    "restart with a seed disk": (SEEDED, RESTART),
    "restart": (ON, RESTART | GENTLY),
    "restart by force": (ON, RESTART),
    "resize and restart": (ON, LARGER),
    "resize and start": (ON, OFF, LARGER),
    "rescue": (ON, RESCUE),
    "unrescue": (ON, RESCUE, UNRESCUE),
    "pause": (ON, PAUSED),
    "resume": (ON, PAUSED, RESUME),
    "suspend": (ON, SUSPENDED),
    "suspend paused": (ON, PAUSED, SUSPENDED),
    "restore": (ON, SUSPENDED, RESUME),
    "restore and pause": (ON, SUSPENDED, PAUSED),
    "stop suspended": (ON, SUSPENDED, OFF | GENTLY),
    "stop suspended by force": (ON, SUSPENDED, OFF),
    "rebuild suspended": (ON, SUSPENDED, REBUILD),
    "rebuild off": (ON, OFF, REBUILD),
    "rebuild larger": (ON, {**REBUILD, "disk_gib": 2}),
    "delete paused": (ON, PAUSED, ABSENT),
    "delete suspended": (ON, SUSPENDED, ABSENT),
    "delete off": (ON, OFF, ABSENT),
}
#: What a guest notices, or would miss.
ON_GUESTS = {"start", "pause", "unpause", "suspend", "restore", "discard", "destroy"}


@pytest.fixture
async def simulated(servers_home: Path, nats_server: NatsServer) -> AsyncIterator[Site]:
    async with a_node(servers_home, nats_server.url, "test:///simulated") as node, a_data_source() as source:
        site = Simulated(node)
        site.seed_url = source.url()
        yield site


@pytest.fixture(scope="module")
async def own(servers_home: Path, libvirt_qemu: Libvirt) -> AsyncIterator[OwnLibvirt]:
    async with own_libvirt(servers_home / "libvirt") as own:
        yield own


@asynccontextmanager
async def site_on(own: OwnLibvirt, home: Path, nats: NatsServer) -> AsyncIterator[OnQemu]:
    hypervisor = LibvirtHypervisor(own.uri, "default", "qemu", deadline=60)
    async with a_node(home, nats.url, own.uri) as node:
        yield OnQemu(node, hypervisor)
    hypervisor.close()


@pytest.fixture
async def on_qemu(own: OwnLibvirt, servers_home: Path, nats_server: NatsServer) -> AsyncIterator[OnQemu]:
    async with site_on(own, servers_home, nats_server) as site:
        yield site


@dataclass(frozen=True)
class Model:
    """A life without a death: the acts on the way to the last document, and what there is then."""

    name: str
    life: tuple[Change, ...]
    acts: list[str]
    left: Left

    def runs_on_from(self, stop: Stop) -> bool:
        """Whether the guest that runs at an act on its domain is the one that is left."""
        acts = [act for act in self.acts if act in ON_DOMAINS]
        to_come = acts[stop.number - 1 if stop.before else stop.number :]
        return self.left.power is Power.ON and not {"start", "restore", "destroy"} & set(to_come)


def on_guest(acts: list[str]) -> Counter[str]:
    return Counter(act for act in acts if act in ON_GUESTS)


async def rehearse(site: Site, name: str, life: tuple[Change, ...]) -> Model:
    vm = new_vm()
    await prepare(site, vm, life)
    known = len(site.acts(vm, "begins"))
    await site.want(vm, life[-1])
    left = await site.settled(vm)
    return Model(name, life, site.acts(vm, "begins")[known:], left)


async def prepare(site: Site, vm: str, life: tuple[Change, ...]) -> None:
    """All documents but the last."""
    for change in life[:-1]:
        await site.want(vm, change)
        await site.settled(vm)


async def rehearsals(site: Site, lives: Mapping[str, tuple[Change, ...]]) -> list[Model]:
    return await asyncio.gather(*(rehearse(site, name, life) for name, life in lives.items()))


@pytest.fixture(scope="module")
async def models(own: OwnLibvirt, servers_home: Path, nats_server: NatsServer) -> list[Model]:
    """On QEMU."""
    lives = {**LIVES, **{name: MORE_LIVES[name] for name in ("suspend", "restore")}}
    async with site_on(own, servers_home, nats_server) as site, site.daemon():
        models = await rehearsals(site, lives)
        await site.node.remove(*site.node.documents)
    return models


Deaths = dict[str, tuple[Model, Stop]]
"""Where each VM is to be when it happens."""


def where(model: Model, stop: Stop) -> str:
    return f"{model.name}, {'before' if stop.before else 'after'} {model.acts[stop.number - 1]}"


async def test_the_daemon_dies_at_every_act_on_a_simulated_host(simulated: Site) -> None:
    async with simulated.daemon():
        models = await rehearsals(simulated, MORE_LIVES)
    await the_daemon_dies(
        simulated,
        {
            new_vm(): (model, Stop(number, before))
            for model in models
            for number in range(1, len(model.acts) + 1)
            for before in (True, False)
        },
    )


@pytest.mark.qemu
async def test_the_daemon_dies_around_every_act_on_qemu(on_qemu: OnQemu, models: list[Model]) -> None:
    """After one act is before the next. Between two acts on files nothing is asked of QEMU: those deaths are above."""
    numbered = [
        (model, number)
        for model in models
        for number in range(1, len(model.acts) + 1)
        if set(model.acts[number - 1 : number + 1]) & set(ON_DOMAINS) or number == len(model.acts)
    ]
    assert {model.name for model, _ in numbered} == {model.name for model in models}
    await the_daemon_dies(on_qemu, {new_vm(): (model, Stop(number, before=False)) for model, number in numbered})


async def the_daemon_dies(site: Site, deaths: Deaths) -> None:
    async with site.daemon():
        await asyncio.gather(*(prepare(site, vm, model.life) for vm, (model, _) in deaths.items()))
    known = {vm: len(site.acts(vm, "done")) for vm in deaths}
    for vm, (model, _) in deaths.items():
        await site.want(vm, model.life[-1])
    async with site.daemon({vm: stop for vm, (_, stop) in deaths.items()}) as doomed:
        try:
            assert await asyncio.wait_for(doomed.wait(), 60) == -signal.SIGKILL
        except TimeoutError:
            far = {where(*death): site.acts(vm, "begins") for vm, death in deaths.items()}
            raise AssertionError(f"not all got there: {far}") from None
    async with site.daemon():
        for vm, death in deaths.items():
            model, _ = death
            assert await site.settled(vm) == model.left, where(*death)
            assert on_guest(site.acts(vm, "done")[known[vm] :]) == on_guest(model.acts), where(*death)
        await site.node.remove(*site.node.documents)
    await nothing_is_left(site)


async def nothing_is_left(site: Site) -> None:
    for vm in site.node.documents:
        assert await site.look(vm) == Have(vm, Power.ABSENT)
    data = site.node.settings.data_dir
    assert [path for folder in ("disks", "consoles") for path in (data / folder).iterdir()] == []
    assert list((data / "images").glob("*.part*")) == []


@pytest.mark.qemu
async def test_libvirtd_dies_at_every_act(own: OwnLibvirt, on_qemu: OnQemu, models: list[Model]) -> None:
    """It dies while every VM stands at another act, and once more in the middle of what they go on with.

    After one act libvirtd is asked for nothing until the next.
    """
    there = asyncio.Event()
    acts = Acts(there.set)
    deaths: Deaths = {
        new_vm(): (model, Stop(max(number, 1), before=number == 0))
        for model in models
        for number in range(len([act for act in model.acts if act in ON_DOMAINS]) + 1)
    }
    bystander = new_vm()
    async with on_qemu.node.daemon(Acting(on_qemu.hypervisor, acts)):
        await asyncio.gather(
            prepare(on_qemu, bystander, (ON, ON)),
            *(prepare(on_qemu, vm, model.life) for vm, (model, _) in deaths.items()),
        )
        acts.stop_at({vm: stop for vm, (_, stop) in deaths.items()})
        for vm, (model, _) in deaths.items():
            await on_qemu.want(vm, model.life[-1])
        await eventually(there.is_set, "all are there")
        said = len(on_qemu.node.reports[bystander])
        run_on = [bystander, *(vm for vm, (model, stop) in deaths.items() if model.runs_on_from(stop))]
        guests = {domain_name(vm): own.guests()[domain_name(vm)] for vm in run_on}
        await own.kill()
        await own.start()
        acts.go_on.set()
        await asyncio.sleep(0.2)
        await own.kill()
        await own.start()
        for vm, death in deaths.items():
            assert await on_qemu.settled(vm) == death[0].left, where(*death)
        await on_qemu.settled(bystander)
        assert own.guests().items() >= guests.items(), "guests survive it"
        assert {report.power for report in on_qemu.node.reports[bystander][said:]} <= {Power.ON, Power.UNKNOWN}
        await on_qemu.node.remove(*on_qemu.node.documents)
    await nothing_is_left(on_qemu)


@pytest.mark.qemu
async def test_memory_that_libvirtd_left_over_is_never_gone_back_to(own: OwnLibvirt, on_qemu: OnQemu) -> None:
    """It died in the middle of a suspension, and nobody wants that any more: the guest runs on beside half a file."""
    runs, paused = new_vm(), new_vm()
    async with on_qemu.node.daemon(on_qemu.hypervisor):
        await asyncio.gather(prepare(on_qemu, runs, (ON, ON)), prepare(on_qemu, paused, (ON, PAUSED, ON)))
        await own.kill()
        left_over = [own.memory(domain_name(vm)) for vm in (runs, paused)]
        for file in left_over:
            file.write_bytes(b"LibvirtQemudPart")
        await own.start()
        await eventually(lambda: not any(file.exists() for file in left_over), "it is deleted")
        for vm in (runs, paused):
            await on_qemu.settled(vm)
            await on_qemu.want(vm, OFF)
            await on_qemu.settled(vm)
        await on_qemu.node.remove(runs, paused)
    assert not {report.power for vm in (runs, paused) for report in on_qemu.node.reports[vm]} & {Power.SUSPENDED}
