"""The node daemon's entry point: it connects the parts, and stops them cleanly."""

import asyncio
from functools import partial

from node_daemon.asks.answers import Answers
from node_daemon.asks.proofs import AskProofs
from node_daemon.hypervisor.console_log import keep_small
from node_daemon.hypervisor.host_names import HostNames
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.membership import credentials
from node_daemon.membership.credentials import Files
from node_daemon.membership.renewal import keep_valid
from node_daemon.network.host_firewall import Firewall, HostFirewall, NoFirewall, bus_addresses
from node_daemon.reconcile.daemon import Daemon
from node_daemon.reconcile.executor import Executor
from node_daemon.reconcile.host import GIB, machine, this_host, virt_type
from node_daemon.storage.disks import Disks
from node_daemon.storage.folder import hold, impassable, new_folder
from node_daemon.storage.image_keeper import keep_closed, keep_tidy
from node_daemon.storage.image_pieces import Bus
from node_daemon.storage.images import Images
from node_daemon.usage import metrics
from node_daemon.usage.host import Host
from node_daemon.usage.listener import Listener
from node_daemon.usage.sampler import Sampler, Sampling
from node_daemon.usage.series import Series
from runtime import logs, subjects
from runtime.bus import bus
from runtime.bus.refusal_records import RefusalRecords
from runtime.bus.refused_calls import RefusedGuest, refused_packets
from runtime.settings import NodeSettings
from runtime.tasks.essential import Essential, until_stopped
from runtime.tasks.stopping import on_signals
from runtime.tasks.tasks import to_the_end

log = logs.get(__name__)


async def run(settings: NodeSettings) -> None:
    """Serve this node until SIGTERM or SIGINT. Guests keep running.

    Raises Occupied when another daemon works in the same data folder.
    """
    settings = credentials.applied(settings)
    stop = asyncio.Event()
    on_signals(stop)
    data = new_folder(settings.data_dir)
    with hold(data):
        if (folder := impassable(data)) is not None:
            log.warning("QEMU's user cannot pass through this folder", folder=str(folder), help="chmod o+x")
        names = HostNames(data.resolve())
        hypervisor = LibvirtHypervisor(
            settings.libvirt_uri,
            settings.network,
            virt_type(settings.libvirt_uri),
            settings.libvirt_deadline,
            machine(),
            names=names,
        )
        try:
            await until_stopped(stop, serve(settings, hypervisor))
            log.info("stopped; guests keep running")
        finally:
            hypervisor.close()


def firewall_of(
    settings: NodeSettings, hypervisor: LibvirtHypervisor, records: RefusalRecords[RefusedGuest]
) -> Firewall:
    """The host's firewall, which also closes the bus to guests. Simulated guests have no interfaces.

    `records`: of the packets that it drops.
    """
    if virt_type(settings.libvirt_uri) == "test" or not settings.guest_firewall:
        return NoFirewall()
    names = HostNames(settings.data_dir.resolve())

    def dropped(place: str, vm: str | None, packets: int) -> None:
        records.note(refused_packets(place, vm), packets)

    return HostFirewall(names, hypervisor.guest_network, bus_addresses(settings.nats_url), dropped)


async def serve(settings: NodeSettings, hypervisor: LibvirtHypervisor) -> None:
    """Connect to NATS and work until cancelled."""
    host = this_host()
    disks = Disks(settings.data_dir)
    connection = await bus.connect(settings, f"node-{settings.node}")
    images = Images(
        settings.data_dir / "images",
        settings.image_folders,
        hosts=settings.fetch_from,
        budget=int(settings.image_cache_gib * GIB),
        bases=disks.bases,
        base=settings.image_base,
        platform=Bus(connection, settings.node),
    )
    records = RefusalRecords[RefusedGuest](connection, subjects.node_refusals(settings.node))
    firewall = firewall_of(settings, hypervisor, records)
    executor = Executor(hypervisor, images, disks, host, settings.parallel_starts, firewall)
    asks = AskProofs()
    sampling = Sampling(settings.usage_seconds) if settings.usage_seconds else None
    sampler = Sampler(
        settings.node,
        settings.usage_seconds,
        hypervisor.usage,
        Host(settings.data_dir).usage,
        Series(settings.data_dir / "usage.series"),
    )
    answers = Answers(connection, settings.node, disks, hypervisor, asks, sampler if sampling is not None else None)
    daemon = Daemon(
        settings, connection, hypervisor, executor, host, images.use, [answers.serve], firewall=firewall, asks=asks
    )
    try:
        async with Essential() as essential:
            essential.start("bus", connection.until_ended())
            essential.start("daemon", daemon.run())
            essential.start("image folder", keep_closed(images, hypervisor.qemu_group))
            essential.start("image cache", keep_tidy(images, connection, settings.node))
            essential.start("credential", keep_valid(connection, Files(settings.home)))
            essential.start("refusals", records.run())
            essential.start("console logs", keep_small(disks.consoles))
            if sampling is not None:
                sampler.projects = daemon.projects
                sampling.samplers.append(sampler)
                essential.start("usage", sampling.run())
                if settings.metrics_port:
                    text = partial(metrics.of, sampling)
                    essential.start("metrics", Listener(settings.metrics_host, settings.metrics_port, text).run())
            await essential.for_ever()
    finally:
        await to_the_end(firewall.close())
        await connection.close()
