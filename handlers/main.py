"""The handlers process: one FastStream application around the command loop and the process managers."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from faststream.security import SASLPlaintext
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy

from domain.placement import Policy
from eventstore.checkpoints import public_keys, public_path, signing_key
from eventstore.documents import Documents
from eventstore.keystore import adopt
from eventstore.notary import Notary
from eventstore.parking import Parking
from eventstore.store import EventStore, Unavailable
from eventstore.vault import Vault
from handlers import reports
from handlers.cached_images import answer_nodes
from handlers.commands import CommandLoop
from handlers.leases import Leases
from handlers.managers.deadlines import Deadlines
from handlers.managers.deletions import Deletions
from handlers.managers.dispatch import Dispatcher
from handlers.managers.driver import Driver
from handlers.managers.image_reading import Reader
from handlers.managers.images import Verifier
from handlers.managers.liveness import Liveness
from handlers.managers.notary import Signing
from handlers.managers.placement import Placer
from handlers.registration import Registration, hear_heartbeats
from handlers.routes import Facts
from handlers.turns import Turns
from handlers.world import World
from runtime import bus, logs, streams, subjects
from runtime.bus import QuickClient
from runtime.essential import Essential
from runtime.patience import PASSING, patiently
from runtime.settings import HandlersSettings

log = logs.get(__name__)


@dataclass(frozen=True)
class Parts:
    """What the process is made of."""

    nc: Client
    world: World
    commands: CommandLoop
    liveness: Liveness
    registration: Registration
    reports: reports.Reports
    parking: Parking
    drivers: Sequence[Driver]


async def assemble(settings: HandlersSettings) -> Parts:
    """Connect, check the streams, and put the parts together. Raises WeakStream when a stream promises too little."""
    nc = await bus.connect(settings, "handlers")
    js = nc.jetstream()
    await streams.ensure_all(js, settings.nats_replicas)
    await patiently("the vault", lambda: adopt(nc), (*PASSING, Unavailable))
    world = World()
    store = EventStore(nc, frontier=world.frontier)
    parking = Parking(nc)
    vault = Vault.of(nc, settings.master_key_path)
    key = settings.home / "checkpoint.key"
    policy = Policy(vcpu_ratio=settings.vcpu_ratio)
    commands = CommandLoop(nc, store, Facts(world, vault, policy))
    malformed = commands.health.malformed
    liveness = Liveness(store, world, settings.node_timeout, settings.clock_offset_seconds, malformed)
    notary = Notary(nc, signing_key(key), public_keys(public_path(key)), parking)
    reader = Reader(settings.home / "imports", settings.image_folders, settings.fetch_from)
    drivers = [
        Placer(store, world, policy, Turns(commands.in_flight)).driver(),
        Dispatcher(Documents(nc, subjects.WANTED), vault, world, settings.seed_url).driver(),
        Deletions(store, world).driver(),
        liveness.driver(),
        Deadlines(store, world, liveness.disk_is_full).driver(),
        Verifier(store, world, reader, vault).driver(),
        Signing(notary).driver(every=settings.checkpoint_seconds),
    ]
    commands.health.managers = lambda: [driver.status() for driver in drivers]
    leases = Leases(Documents(nc, subjects.LEASES))
    return Parts(
        nc=nc,
        world=world,
        commands=commands,
        liveness=liveness,
        registration=Registration(store, liveness, leases, settings.lease_seconds, malformed),
        reports=reports.Reports(store, world),
        parking=parking,
        drivers=drivers,
    )


async def caught_up(world: World, store: EventStore) -> None:
    """Wait until the world is as new as the log was at the time of the call."""
    await world.reached(await store.last_position())


class TotalBroker(NatsBroker):
    """On our own client: what a node writes into headers must not end the connection's reading."""

    async def _connect(self) -> Client:
        connection = QuickClient()
        await connection.connect(**self._connection_kwargs)
        self.config.connect(connection)
        return connection


def broker_for(settings: HandlersSettings, parts: Parts) -> NatsBroker:
    """The FastStream broker with its subscriber: reports (stored, acknowledged)."""
    security = None
    if settings.nats_user:
        security = SASLPlaintext(settings.nats_user, settings.nats_password or "")
    broker = TotalBroker(
        [url.strip() for url in settings.nats_url.split(",")],
        name="nebula-handlers-subscribers",
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        security=security,
        logger=logging.getLogger(
            "handlers.faststream"
        ),  # its own, "faststream", writes a line a message, in its own form
    )
    broker.subscriber(
        subjects.REPORTS_OF_ALL,
        pull_sub=PullSub(batch_size=16),
        stream=JStream(subjects.REPORTS, declare=False),
        durable=reports.CONSUMER,
        deliver_policy=DeliverPolicy.ALL,
        config=ConsumerConfig(ack_wait=5, max_ack_pending=256),
        ack_policy=AckPolicy.NACK_ON_ERROR,
        decoder=raw_body,
    )(reports.receiver(parts.reports, parts.parking, settings.max_deliver))

    return broker


async def raw_body(msg: NatsMessage) -> bytes:
    """The body as it came: what is in it is judged where failure has a place to go."""
    return msg.body


async def run(settings: HandlersSettings) -> None:
    """Run until SIGINT or SIGTERM. Work begins once the world has caught up with the log."""
    parts = await assemble(settings)
    store = EventStore(parts.nc)
    try:
        async with Essential() as essential:
            essential.start("malformed messages", parts.world.malformed.run(parts.parking))
            essential.start("parked", parts.parking.keep_count())
            essential.start("world", parts.world.follow(parts.nc, Turns(parts.commands.in_flight)))
            await essential.during(patiently("the log", lambda: caught_up(parts.world, store), (Unavailable,)))
            log.info("world read", position=parts.world.position)
            for driver in parts.drivers:
                essential.start(driver.name, driver.run())
            await parts.commands.start()
            await hear_heartbeats(parts.nc, parts.liveness)
            await parts.registration.serve(parts.nc)
            await answer_nodes(parts.nc, store, parts.world, parts.commands.health.malformed)
            log.info("handlers ready")
            await essential.during(FastStream(broker_for(settings, parts), logger=None).run())
    finally:
        await parts.nc.close()
