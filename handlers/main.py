"""The handlers process: the command loop, the process managers, and the queue of reports."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from domain.placement import Policy
from eventstore.documents import Documents
from eventstore.integrity.checkpoints import public_keys, public_path, signing_key
from eventstore.integrity.notary import Notary
from eventstore.log.keyring import Keyring, begin
from eventstore.log.store import EventStore, Unavailable
from eventstore.parking.parking import Parking
from eventstore.vault.keystore import adopt
from eventstore.vault.vault import Vault
from handlers import maintenance
from handlers.commands.lookups import Facts
from handlers.commands.loop import CommandLoop
from handlers.health import StatusMessage
from handlers.images.cached import answer_nodes
from handlers.images.pieces import Pieces
from handlers.images.reading import Reader
from handlers.images.store import ImageStore, digests_in_use
from handlers.managers import snapshots
from handlers.managers.deadlines import Deadlines
from handlers.managers.deletions import Deletions
from handlers.managers.dispatch import Dispatcher
from handlers.managers.driver import Driver
from handlers.managers.enrollments import Enrollments, nothing, revoke
from handlers.managers.images import Verifier
from handlers.managers.lease import Lease
from handlers.managers.liveness import Liveness
from handlers.managers.missing_images import MissingImages
from handlers.managers.notary import Signing
from handlers.managers.placement import Placer
from handlers.managers.snapshots import Begun, Snapshots
from handlers.managers.wanted_documents import is_signed
from handlers.nodes.joining import Bus, Joining, Signers
from handlers.nodes.known import Known
from handlers.nodes.leases import Leases, newest_lease
from handlers.nodes.registration import Registration, hear_heartbeats
from handlers.nodes.reports import Reports, receive
from handlers.queues.queues import Queues
from handlers.world.turns import Turns
from handlers.world.world import World
from runtime import logs, subjects
from runtime.bus import bus, streams
from runtime.bus.accounts.authority import signer_of
from runtime.bus.api import has_accounts
from runtime.bus.status import publish_status
from runtime.files.unusable import sentence, unusable
from runtime.node_keys import node_keys
from runtime.process import Process, this
from runtime.settings import HandlersSettings
from runtime.tasks.essential import Essential, until_stopped
from runtime.tasks.patience import PASSING, CannotRun, patiently
from runtime.tasks.stopping import on_signals
from runtime.tasks.tasks import to_the_end

log = logs.get(__name__)


@dataclass(frozen=True)
class Parts:
    """The parts of the process."""

    nc: Client
    keys: Keyring
    world: World
    commands: CommandLoop
    turns: Turns
    liveness: Liveness
    known: Known
    registration: Registration
    joining: Joining
    reports: Reports
    parking: Parking
    dispatcher: Dispatcher
    kept: ImageStore
    drivers: Sequence[Driver]


async def event_keys(path: Path, nc: Client) -> Keyring:
    """The event keys, which the first start makes. Raises CannotRun if the path cannot be used, as `begin` else."""
    try:
        return await begin(path, EventStore(nc))
    except OSError as error:
        if unusable(error):
            raise CannotRun(sentence(error)) from error
        raise


async def begin_world(settings: HandlersSettings, nc: Client, keys: Keyring) -> Begun:
    """The world of the snapshot, if there is one and it may be used. Raises as `snapshots.begin`."""
    return (
        await snapshots.begin(settings.home, EventStore(nc, keys), keys) if settings.snapshot_events else Begun(World())
    )


async def check_node_keys(path: Path, wanted: Documents) -> None:
    """Raises CannotRun if handlers have signed documents with other keys than those of the file, Unavailable."""
    keys, signed = node_keys(path) if path.exists() else None, False
    async for page in wanted.pages(subjects.wanted_of()):  # nearly always the first one tells
        of_page = [document for document in page if document.mac is not None]
        if keys is not None and any(is_signed(keys, document) for document in of_page):
            return
        signed = signed or bool(of_page)
    if not signed:
        node_keys(path)
        return
    what = "is missing" if keys is None else "has another key than the one that signed them"
    raise CannotRun(
        f"the documents of nodes are signed, and {path} {what}: copy it from the host that has it; if it is lost, "
        "see docs/integrity.md"
    )


async def assemble(settings: HandlersSettings, nc: Client, process: Process) -> Parts:
    """Check the streams, and create the parts. Raises CannotRun, such as WeakStream for a stream with few replicas."""
    js = nc.jetstream()
    await streams.ensure_all(js, settings.nats_replicas)
    await patiently("the vault", lambda: adopt(nc), (*PASSING, Unavailable))
    keys = await patiently("the log", lambda: event_keys(settings.event_keys_path, nc), (*PASSING, Unavailable))
    begun = await patiently("the log", lambda: begin_world(settings, nc, keys), (*PASSING, Unavailable))
    world = begun.world
    store = EventStore(nc, keys, frontier=world.frontier, guard=world.newer.check)
    parking = Parking(nc)
    vault = Vault.of(nc, settings.master_key_path)
    key = settings.home / "checkpoint.key"
    policy = Policy(vcpu_ratio=settings.vcpu_ratio)
    commands = CommandLoop(nc, store, Facts(world, vault, policy), parking)
    turns = Turns(commands.in_flight)
    malformed = commands.health.malformed
    wanted = Documents(nc, subjects.WANTED)
    check = partial(check_node_keys, settings.node_keys_path, wanted)
    await patiently("the wanted documents", check, (*PASSING, Unavailable))
    nodes = node_keys(settings.node_keys_path)
    known = Known(world)
    liveness = Liveness(
        store, world, settings.node_timeout, settings.clock_offset_seconds, malformed, nc, nodes, keys.asking, known.of
    )
    notary = Notary(nc, signing_key(key), public_keys(public_path(key)), parking, keys)
    dispatcher = Dispatcher(wanted, vault, world, settings.seed_url, store, parking, nodes)
    in_use = partial(digests_in_use, world)
    kept = ImageStore(settings.home / "image-store", int(settings.image_store_gib * 1024**3), in_use)
    readers = [
        Reader(settings.home / folder, settings.image_folders, settings.fetch_from, kept)
        for folder in ("imports", "imports-again")
    ]
    drivers = [
        Placer(store, world, policy, turns, vault).driver(),
        dispatcher.driver(),
        Deletions(store, world).driver(),
        Enrollments(store, world, partial(revoke, nc) if has_accounts(nc) else nothing).driver(),
        liveness.driver(),
        Deadlines(store, world, liveness.disk_is_full).driver(),
        Verifier(store, world, readers[0], vault, kept).driver(),
        MissingImages(world, readers[1], vault, kept).driver(),
        Signing(notary).driver(every=settings.checkpoint_seconds),
    ]
    if settings.snapshot_events:
        home, share = settings.home, settings.snapshot_share
        kept_world = Snapshots(home, store, keys, begun, settings.snapshot_events, share, parking.write_counts)
        drivers.append(kept_world.driver())
    commands.health.process = process
    commands.health.managers = lambda: [driver.status() for driver in drivers]
    leases = Leases(Documents(nc, subjects.LEASES), partial(newest_lease, store), nodes)
    return Parts(
        nc=nc,
        keys=keys,
        world=world,
        commands=commands,
        turns=turns,
        liveness=liveness,
        known=known,
        registration=Registration(
            store,
            liveness,
            leases,
            settings.lease_seconds,
            malformed,
            liveness.proofs,
            keyed=not settings.unsigned_nodes,
        ),
        joining=Joining(
            store, bus_of(settings), signers(settings), settings.node_credential_hours * 3600, nodes, malformed
        ),
        reports=Reports(store, world, nodes),
        parking=parking,
        dispatcher=dispatcher,
        kept=kept,
        drivers=drivers,
    )


def bus_of(settings: HandlersSettings) -> Bus:
    """Where nodes reach the bus. Raises CannotRun."""
    url = settings.node_nats_url or settings.nats_url
    if settings.nats_ca is None:
        return Bus(url)
    try:
        return Bus(url, settings.nats_ca.read_text())
    except OSError as error:
        raise CannotRun(f"NEBULA_NATS_CA: {error.strerror}: {settings.nats_ca}") from error


def signers(settings: HandlersSettings) -> Signers:
    """Make credentials of nodes, if this process has the keys for that. Raises CannotRun."""
    file = settings.node_signer_path
    try:
        found = signer_of(file)
        return Signers(found.credentials, found.guest_credentials)
    except FileNotFoundError as error:
        if settings.node_signer_file is not None:
            raise CannotRun(f"cannot read NEBULA_NODE_SIGNER_FILE: {error.strerror}: {file}") from error
        return Signers()  # a bus without accounts
    except (OSError, ValueError) as error:
        raise CannotRun(f"{file} cannot be used: {error}") from error


async def give_back(lease: Lease, nc: Client) -> None:
    """Return the lease of the managers, for another process. Called when no manager runs here any more."""
    if nc.is_connected:
        await lease.give_back()


async def finish(stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Stop a part in its own time: a process that stops is cancelled again and again (`until_stopped`)."""
    await to_the_end(stop())


async def caught_up(world: World, store: EventStore) -> None:
    """Wait until the world has reached the end that the log has now."""
    await world.reached(await store.last_position())


async def run(settings: HandlersSettings) -> None:
    """Run until SIGINT or SIGTERM. Work begins once the world has caught up with the log."""
    stop = asyncio.Event()
    on_signals(stop)
    await until_stopped(stop, serve(settings))
    log.info("handlers stopped")


async def serve(settings: HandlersSettings) -> None:
    """Connect and work, until cancelled."""
    async with AsyncExitStack() as stack:
        nc = await bus.connect(settings, "handlers")
        stack.push_async_callback(nc.close)
        process = this()
        lease = Lease(Documents(nc, subjects.MANAGERS, timeout=2.0), process, outdated=lambda: bool(parts.world.newer))
        stack.push_async_callback(finish, partial(give_back, lease, nc))
        essential = await stack.enter_async_context(Essential())
        essential.start("bus", nc.until_ended())
        parts = await essential.during(assemble(settings, nc, process))
        store = EventStore(nc, parts.keys)
        essential.start("malformed messages", parts.world.malformed.run(parts.parking))
        essential.start("parked", parts.parking.keep_count())
        if has_accounts(nc):
            essential.start("old parked records", parts.parking.keep_tidy())
        essential.start("world", parts.world.follow(nc, parts.turns, parts.keys))
        await essential.during(patiently("the log", lambda: caught_up(parts.world, store), (Unavailable,)))
        log.info("world read", position=parts.world.position)
        essential.start("wanted documents", parts.dispatcher.notice(nc))
        essential.start("known VMs", parts.known.run())
        world = parts.world
        message = StatusMessage(
            process, lambda: world.position, lambda: lease.holder, parts.commands.health.managers, world.newer
        )
        essential.start("status", publish_status(nc, subjects.role_status("handlers", process.id), message))
        essential.start("lease of the managers", lease.keep())
        for driver in parts.drivers:
            essential.start(driver.name, driver.run(lease))
        await parts.commands.start()
        stack.push_async_callback(finish, parts.commands.stop)
        await hear_heartbeats(nc, parts.liveness)
        await parts.registration.serve(nc)
        await parts.joining.serve(nc)
        malformed = parts.commands.health.malformed
        await answer_nodes(nc, store, parts.world, malformed)
        await maintenance.serve(nc, store, malformed)
        images = await bus.connect(
            settings, "handlers-images", silent=True
        )  # its own connection: replies do not wait behind images
        stack.push_async_callback(images.close)
        pieces = Pieces(images, store, parts.world, parts.kept, settings.image_folders, malformed)
        essential.start("bus of images", images.until_ended())
        await pieces.start()
        stack.push_async_callback(pieces.stop)
        queues = Queues(nc, parts.parking, settings.max_deliver)
        receive(queues, parts.reports)
        stack.push_async_callback(finish, queues.stop)
        essential.start("messages in work", queues.keep())
        await essential.during(queues.start())
        log.info("handlers ready")
        await essential.for_ever()
