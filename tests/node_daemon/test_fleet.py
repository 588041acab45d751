"""Simulated nodes as one process runs them: their random faults, and their guests' cloud-init."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from nats.errors import NoRespondersError, TimeoutError as NatsTimeoutError

from domain.contract import Desired, Power
from domain.guest_usage import UsageSeries
from node_daemon.hypervisor.faults import Faulty
from node_daemon.simulation import random_faults, simulated_cloud_init
from node_daemon.simulation.fleet import SimulatedNode
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_cloud_init import Booted, NotConfigured, SimulatedGuests, text_in, url_in
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulated_storage import SimulatedDisks
from node_daemon.simulation.simulator import Simulator
from node_daemon.storage.base_image import BaseImage
from node_daemon.usage.sampler import Sampling
from projections.guest_answers import meta_data
from projections.guest_data.phone_home import hook
from projections.seeds import Seed
from runtime import subjects
from runtime.local.servers import NatsServer
from runtime.settings import FaultRates, Latencies, SimulationSettings
from runtime.tasks.tasks import end
from tests.node_daemon.harness import a_node, gone, on
from tests.node_daemon.test_simulator import IMAGE, boot_of
from tests.waiting import eventually

HOUR = 3600.0


async def test_every_fate_strikes_and_a_reboot_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_faults, "OUTAGE", 0.01)
    simulator = Simulator(SimulatedHost())
    way = Faulty(simulator, FaultRates(), deadline=1)
    boots = [boot_of(simulator) for _ in range(20)]
    for boot in boots:
        await simulator.start(boot)
        await simulator.persist(boot.wanted.vm)
    often = 100 * HOUR
    rates = FaultRates(crash=often, poweroff=often, stall=often, vanish=often, outage=often, reboot=10 * often)
    await asyncio.wait_for(random_faults.until_reboot(simulator.host, way, rates, random.Random(1)), 30)
    found = await simulator.domains()
    assert len(found) < len(boots), "some vanished"
    assert {have.cause for have in found.values()} >= {"crashed", "guest"}
    assert any(have.stalled for have in found.values())


async def test_without_rates_nothing_ever_happens() -> None:
    simulator = Simulator(SimulatedHost())
    quiet = asyncio.create_task(
        random_faults.until_reboot(simulator.host, Faulty(simulator, FaultRates(), 1), FaultRates(), random.Random(1))
    )
    await asyncio.sleep(0.05)
    assert not quiet.done()
    await end([quiet])


async def test_a_host_that_reboots_starts_its_guests_again(servers_home: Path, nats_server: NatsServer) -> None:
    async with a_node(servers_home, nats_server.url, "test:///simulated") as node:
        settings = SimulationSettings(
            **node.settings.model_dump(exclude={"node", "libvirt_uri"}),
            simulate_seconds=Latencies(call=0, image=0, boot=0, lease=0, shutdown=0.01, memory=0, reboot=0.01),
            simulate_faults=FaultRates(reboot=2 * HOUR),
            simulate_phone_home=False,
        )
        simulated = SimulatedNode(node.settings.node, settings, node.client, HostStore(), SimulatedGuests())
        running = asyncio.create_task(simulated.run())
        vm = await node.create(image=IMAGE)
        await node.until(vm, on)
        boots = {heartbeat.boot for heartbeat in node.heartbeats}

        async def again() -> bool:
            return len({heartbeat.boot for heartbeat in node.heartbeats} - boots) >= 3

        await eventually(again, "some reboots")
        assert (await node.until(vm, on)).boots == 1
        assert all(report.error is None for report in node.reports[vm])
        assert not any(report.power in (Power.OFF, Power.ABSENT) and report.step is None for report in node.reports[vm])
        await node.change(vm, desired=Desired.ABSENT)
        await node.until(vm, gone)
        await end([running])


async def test_a_simulated_node_answers_for_its_guests(servers_home: Path, nats_server: NatsServer) -> None:
    async with a_node(servers_home, nats_server.url, "test:///simulated") as node:
        settings = SimulationSettings(
            **node.settings.model_dump(exclude={"node", "libvirt_uri"}),
            simulate_seconds=Latencies(call=0, image=0, boot=0, lease=0, shutdown=0.01, memory=0, reboot=0.01),
            simulate_phone_home=False,
            simulate_faults=FaultRates(clock=300),
        )
        simulated = SimulatedNode(node.settings.node, settings, node.client, HostStore(), SimulatedGuests())
        running = asyncio.create_task(simulated.run())

        async def asked(verb: str) -> Any:
            subject = subjects.ask(node.settings.node, verb)
            return json.loads((await node.client.request(subject, json.dumps({"vm": vm}).encode(), timeout=10)).data)

        vm = await node.create(image=IMAGE)
        await node.until(vm, on)
        assert [each["mountpoint"] for each in (await asked("guest"))["ok"]["filesystems"]] == ["/"]
        assert (await asked("console-log"))["problem"]["code"] == "no_console_log"
        await node.change(vm, desired=Desired.ABSENT)
        await node.until(vm, gone)
        assert (await asked("guest"))["problem"]["code"] == "guest_unavailable"
        await eventually(lambda: bool(node.heartbeats), "a heartbeat")
        assert node.heartbeats[0].at > datetime.now(UTC) + timedelta(seconds=60), "by the clock of that host"
        await end([running])


async def test_a_simulated_node_keeps_the_usage_of_its_guests_through_reboots(
    servers_home: Path, nats_server: NatsServer
) -> None:
    async with a_node(servers_home, nats_server.url, "test:///simulated") as node:
        settings = SimulationSettings(
            **node.settings.model_dump(exclude={"node", "libvirt_uri", "metrics_port"}),
            simulate_seconds=Latencies(call=0, image=0, boot=0, lease=0, shutdown=0.01, memory=0, reboot=0.01),
            simulate_faults=FaultRates(reboot=HOUR / 4),
            simulate_phone_home=False,
        )
        sampling = Sampling(0.1)
        simulated = SimulatedNode(node.settings.node, settings, node.client, HostStore(), SimulatedGuests(), sampling)
        running = [asyncio.create_task(simulated.run()), asyncio.create_task(sampling.run())]
        vm = await node.create(image=IMAGE)
        await node.until(vm, on)

        async def used(verb: str, **question: str) -> UsageSeries | None:
            """None while the host boots."""
            body = json.dumps({**question, "seconds": 20, "points": 200}).encode()
            with contextlib.suppress(NoRespondersError, NatsTimeoutError):
                reply = await node.client.request(subjects.ask(node.settings.node, verb), body, timeout=1)
                return UsageSeries.model_validate(json.loads(reply.data)["ok"])
            return None

        async def known() -> bool:
            guest, host = await used("usage", vm=vm), await used("host-usage")
            if guest is None or host is None or len({heartbeat.boot for heartbeat in node.heartbeats}) < 2:
                return False
            assert all(each is None or 0 <= each <= 1 for each in guest.cpu), "no counter of another boot"
            assert all(each is None or each < 32 for each in host.cpu)
            return any(guest.memory_bytes) and any(each is not None for each in host.net_in) and None in guest.cpu

        await eventually(known, "its usage")
        assert all(sample.projects in ({}, {vm: "acme"}) for sample in sampling.newest())
        await end(running)
        assert sampling.samplers == []


class Source:
    """A data source in miniature: answers 503 as often as it is told to, and keeps what is posted."""

    def __init__(self) -> None:
        self.failures = 0
        self.asked: list[str] = []
        self.calls: list[dict[str, list[str]]] = []
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, *_ = head.split()
        length = next((int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        status = "200 OK"
        if self.failures:
            self.failures -= 1
            status = "503 Later"
        elif method == "POST":
            self.calls.append(parse_qs(body.decode()))
        self.asked.append(path)
        text = {
            "/secret/meta-data": meta_data(Seed("default", "i-1", "2024-01-01", (), None, 1, 0)),
            "/secret/vendor-data": hook(f"{self.url}phone-home"),
        }.get(path, "")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
        writer.close()


@asynccontextmanager
async def data_source() -> AsyncIterator[Source]:
    source = Source()
    server = await asyncio.start_server(source, "127.0.0.1", 0)
    source.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/secret/"
    async with server:
        yield source


@pytest.mark.parametrize(
    "document",
    [
        "",
        "hi",
        "[",
        "- a",
        "phone_home: 7",
        "phone_home: {url: 7}",
        "a: &a [*a]",
        "[" * 5000,
        "\0",
        "phone_home: {url: 0x1}",
    ],
)
def test_a_document_that_makes_no_sense_configures_nobody(document: str) -> None:
    with pytest.raises(NotConfigured):
        text_in(document, "phone_home", "url")
    with pytest.raises(NotConfigured):
        url_in(document)


async def test_a_guest_is_configured_and_phones_home_at_each_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_cloud_init, "AGAIN", 0.01)
    everybody, host_store = SimulatedGuests(), HostStore()
    disks = SimulatedDisks("n1", host_store)
    running = asyncio.create_task(everybody.run())

    def up(vm: str, boots: int, resets: int, seed_url: str) -> None:
        everybody.up(Booted(simulator.host, disks, vm, boots, resets, seed_url))

    simulator = Simulator(SimulatedHost("n1", host_store, up=up))
    async with data_source() as source:
        source.failures = 3
        boot = boot_of(simulator, seed_url=source.url)
        vm = boot.wanted.vm
        await disks.ensure(vm, BaseImage(Path("/base"), "raw", 1), 1)
        await simulator.start(boot)
        await simulator.persist(vm)
        await eventually(lambda: disks.configured(vm) == (1, 0), "the guest is configured")
        (call,) = source.calls
        assert (call["instance_id"], call["hostname"]) == (["i-1"], ["2024-01-01"])
        assert call["pub_key_ed25519"][0].startswith("ssh-ed25519 ")

        await simulator.destroy(vm)
        asked = len(source.asked)
        await simulator.start(boot_of(simulator, vm, boots=2, seed_url=source.url))
        await eventually(lambda: disks.configured(vm) == (2, 0), "and again at its second boot")
        names = sorted((*simulated_cloud_init.DOCUMENTS, "phone-home"))
        assert sorted(source.asked[asked:]) == [f"/secret/{name}" for name in names]
        simulator.host.reset(vm)
        await eventually(lambda: disks.configured(vm) == (2, 1), "and once it has booted anew by itself")
        assert len({call["boot_id"][0] for call in source.calls}) == len(source.calls) == 3
    assert SimulatedDisks("n1", host_store).configured(vm) == (2, 1)
    await end([running])
