"""Many simulated nodes in one process: each is a complete daemon on a simulated hypervisor with simulated disks.

They share one connection to the bus and one file for their state, so the guests survive a restart of the process. To
the platform they are normal nodes of virt type `test`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial

import structlog
from nats.aio.client import Client

from domain.guest_usage import GuestUsage
from node_daemon.asks.answers import Answers
from node_daemon.asks.proofs import AskProofs
from node_daemon.hypervisor.faults import Faulty
from node_daemon.hypervisor.hypervisor import Capacity
from node_daemon.membership.presence import utc_now
from node_daemon.reconcile.daemon import Daemon
from node_daemon.reconcile.executor import Executor
from node_daemon.reconcile.plan import Host
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.random_faults import until_reboot
from node_daemon.simulation.simulated_cloud_init import Booted, SimulatedGuests
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulated_storage import SimulatedDisks, SimulatedImages
from node_daemon.simulation.simulated_usage import SimulatedHostUsage
from node_daemon.simulation.simulator import Simulator
from node_daemon.storage.folder import hold, new_folder
from node_daemon.usage import metrics
from node_daemon.usage.listener import Listener
from node_daemon.usage.sampler import Sampler, Sampling
from node_daemon.usage.series import Series
from runtime import logs
from runtime.bus import bus
from runtime.settings import SimulationSettings
from runtime.tasks.essential import Essential, until_stopped
from runtime.tasks.stopping import on_signals
from runtime.tasks.tasks import end

log = logs.get(__name__)

#: The hypervisor URI in the registration of a simulated node; libvirt's test driver has another one.
URI = "test:///simulated"
#: Samples that are kept of each simulated guest: two hours at one each 30 seconds.
USAGE_RECORDS = 240


async def run(settings: SimulationSettings) -> None:
    """Serve all nodes until SIGTERM or SIGINT. Raises Occupied when another process works in the same data folder."""
    stop = asyncio.Event()
    on_signals(stop)
    folder = new_folder(settings.data_dir)
    with hold(folder):
        host_store = HostStore(folder / "hosts.sqlite")
        try:
            await until_stopped(stop, serve(settings, host_store))
            log.info("stopped; the state of the guests is stored")
        finally:
            host_store.close()


async def serve(settings: SimulationSettings, host_store: HostStore) -> None:
    """Connect to NATS and work until cancelled."""
    connection = await bus.connect(settings, f"simulated-{settings.simulate_prefix}")
    guests = SimulatedGuests()
    try:
        async with Essential() as essential:
            essential.start("bus", connection.until_ended())
            essential.start("guests", guests.run())
            sampling = Sampling(settings.usage_seconds) if settings.usage_seconds else None
            if sampling is not None:
                essential.start("usage", sampling.run())
                if settings.metrics_port:
                    text = partial(metrics.of, sampling)
                    essential.start("metrics", Listener(settings.metrics_host, settings.metrics_port, text).run())
            for number in range(1, settings.simulate + 1):
                node = SimulatedNode(
                    f"{settings.simulate_prefix}-{number:03d}", settings, connection, host_store, guests, sampling
                )
                essential.start(node.name, node.run())
                pause = settings.heartbeat_seconds / settings.simulate  # spread the heartbeats of the nodes over time
                await essential.during(asyncio.sleep(pause))
            log.info("all nodes run", nodes=settings.simulate)
            await essential.for_ever()
    finally:
        await connection.close()


class SimulatedNode:
    def __init__(
        self,
        name: str,
        settings: SimulationSettings,
        connection: Client,
        host_store: HostStore,
        guests: SimulatedGuests,
        sampling: Sampling | None = None,
    ) -> None:
        self.name = name
        self._sampling = sampling
        self._bus = connection
        self._seconds, self._rates = settings.simulate_seconds, settings.simulate_faults
        self._settings = settings.model_copy(
            update={"node": name, "libvirt_uri": URI, "disk_gib": settings.simulate_disk_gib}
        )
        self._random = random.Random(f"{settings.simulate_seed} {name} fates")  # noqa: S311  (no secret)
        self._guests = guests
        self._images = SimulatedImages(name, host_store, self._seconds.image)
        self._disks = SimulatedDisks(name, host_store)
        self._host = SimulatedHost(name, host_store, up=self._up if settings.simulate_phone_home else None)
        self._capacity = Capacity(settings.simulate_vcpus, settings.simulate_memory_mib)
        self._simulator = Simulator(
            self._host,
            seconds=self._seconds,
            capacity=self._capacity,
            seed=settings.simulate_seed,
        )

    async def run(self) -> None:
        """Run one boot of the host after the other, until cancelled."""
        structlog.contextvars.bind_contextvars(node=self.name)
        try:
            while True:
                await self._boot()
                self._host.reboot()
                await asyncio.sleep(self._seconds.reboot * self._random.uniform(0.5, 1.5))
        finally:
            self._host.close()

    async def _boot(self) -> None:
        """Run the daemon until the host reboots. A daemon that fails is started again, as systemd would do."""
        hypervisor = Faulty(self._simulator, self._rates, self._settings.libvirt_deadline, self._random.random())
        faults = asyncio.create_task(until_reboot(self._host, hypervisor, self._rates, self._random))
        asks = AskProofs()
        sampler = self._sampler(hypervisor.usage)
        answers = Answers(self._bus, self.name, self._disks, hypervisor, asks, sampler)
        if sampler is not None and self._sampling is not None:
            self._sampling.samplers.append(sampler)
        try:
            while not faults.done():
                host = Host(self._host.boot_id)
                executor = Executor(hypervisor, self._images, self._disks, host, self._settings.parallel_starts)
                daemon = Daemon(
                    self._settings,
                    self._bus,
                    hypervisor,
                    executor,
                    host,
                    extra_tasks=[answers.serve],
                    clock=self._clock,
                    asks=asks,
                )
                if sampler is not None:
                    sampler.projects = daemon.projects
                work = asyncio.create_task(daemon.run())
                try:
                    await asyncio.wait({work, faults}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await end([work])
                if not work.cancelled() and (error := work.exception()) is not None:
                    log.error("the daemon failed; it is started again", exc_info=error)
                    await asyncio.sleep(1)
            faults.result()
        finally:
            if sampler is not None and self._sampling is not None:
                self._sampling.samplers.remove(sampler)
            await end([faults])
            await hypervisor.close()

    def _sampler(self, ask: Callable[[], Awaitable[Mapping[str, GuestUsage]]]) -> Sampler | None:
        """Takes samples of one boot of the host; None if the process takes none."""
        if self._sampling is None:
            return None
        meter = SimulatedHostUsage(ask, self._host.boot_id, self._capacity, self._settings.simulate_disk_gib)
        path = self._settings.data_dir / f"usage-{self.name}.series"
        series = Series(path, records=USAGE_RECORDS)
        return Sampler(self.name, self._sampling.interval, meter.guests, meter.host, series)

    def _clock(self) -> datetime:
        return utc_now() + timedelta(seconds=self._rates.clock)

    def _up(self, vm: str, boots: int, resets: int, seed_url: str) -> None:
        self._guests.up(Booted(self._host, self._disks, vm, boots, resets, seed_url))
