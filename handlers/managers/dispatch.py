"""Dispatch: keeps the wanted documents of all nodes equal to the state in the log.

`wanted.py` makes the document of one VM. The loop compares it with the stored document in NEBULA_WANTED
(`wanted_documents.py`), and replaces that if it differs. An older view of the world never overwrites a newer one
(generation, and the server's compare-and-store). The stream is followed, so a document that handlers did not write is
replaced soon.

After the deletion of a VM its keys are destroyed. Its document stays as a tombstone for some time, because a NATS
server that is killed may bring back an older version of a document that was removed. The tombstone of a VM that was
forgotten on a lost node stays until the node reports that nothing of the VM is left.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

from nats.aio.client import Client

from domain.contract import Desired, ImageSource
from domain.image import UNUSABLE
from domain.vm import Vm, images_of
from eventstore.documents import Document, Documents
from eventstore.log.envelope import Ref
from eventstore.log.follow import follow
from eventstore.log.jetstream import Stream, Unavailable
from eventstore.log.store import Conflict, EventStore, Loaded
from eventstore.parking.parking import Parking
from eventstore.vault.vault import Erased, Vault
from handlers.images.credentials import full_source, key_of, unneeded_keys
from handlers.managers.driver import Driver
from handlers.managers.wanted import source_of, tombstone, wanted
from handlers.managers.wanted_documents import Key, WantedDocuments, about
from handlers.world.watch import Changes
from handlers.world.world import World
from runtime import logs, subjects
from runtime.node_keys import MAC, NodeKeys
from runtime.tasks.patience import patiently

log = logs.get(__name__)

#: How long a tombstone is kept.
TOMBSTONE_AGE = timedelta(hours=1)
#: The highest possible generation.
MOST_GENERATION = 2**63 - 1
#: Seconds between two checks whether the connection is a new one.
LOOK = 1.0
#: Maximum number of VMs whose documents are written at a time, and of those of one node: what delays the documents of
#: one node leaves slots for the others. Documents that are written at a time are stored in groups.
AT_A_TIME, PER_NODE = 128, 32
#: Number of VMs that are looked at before other tasks run.
AT_A_LOOK = 64


class Dispatcher:
    """Keeps the wanted documents up to date. One that cannot be written is tried again later, and delays no other.

    `seed_url`: the URL of the data source of all guests; None: each node's own. `store`: used to check whether a stored
    document can be newer than this world; None: it always can. `keys`: sign the documents; one without a valid MAC is
    written again.
    """

    def __init__(
        self,
        documents: Documents,
        vault: Vault,
        world: World,
        seed_url: str | None = None,
        store: EventStore | None = None,
        parking: Parking | None = None,
        keys: NodeKeys | None = None,
    ) -> None:
        self._vault = vault
        self._world = world
        self._seed_url = seed_url
        self._store = store
        self._documents = WantedDocuments(documents, parking, keys)
        self._signs = keys is not None
        self._watch = world.watch()
        #: for each VM the version that its documents are up to date with
        self._settled: dict[str, int] = {}
        #: the URL of each node that is in the documents of its VMs
        self._urls: dict[str, str] = {}

    def driver(self) -> Driver:
        return Driver("dispatch", self._look, watch=self._watch, period=LOOK, at_a_time=AT_A_TIME, per_lane=PER_NODE)

    async def notice(self, nc: Client) -> None:
        """Follow the stream, for ever, to notice documents that this process did not write."""
        stream = Stream(nc, subjects.WANTED)
        after = await patiently("the wanted documents", stream.last_position, (Unavailable,))
        async for batch in follow(nc, after, [subjects.wanted_of()], stream=subjects.WANTED, event_keys=None):
            for recorded in batch:
                mac = recorded.headers.get(MAC)
                self.found(Document(recorded.subject, recorded.position, recorded.body, recorded.stored_at, mac))
            self._watch.ring()

    def found(self, document: Document) -> None:
        """Process a document of the stream, whoever wrote it."""
        if self._documents.notice(document):
            key = about(document)
            self._settled.pop(key.id, None)
            self._watch.add(Ref(subjects.SYSTEM, key.kind, key.id))

    async def _look(self, changes: Changes, driver: Driver) -> None:
        """Write what differs. All documents are read again after a new connection, and periodically."""
        if changes.everything or self._documents.is_due():
            await self._begin_all(await self._read(), driver)
        else:
            self._begin(changes, driver)
        await self._documents.park_malformed()

    async def _read(self) -> set[str]:
        """Read all documents of the stream. Returns the names of the keys in the vault, read before."""
        held = await self._vault.held()
        await self._documents.read()
        self._settled = {}
        return held

    async def _begin_all(self, held: set[str], driver: Driver) -> None:
        """The same as `_begin`, for everything. Other tasks run in between: there may be very many VMs.

        `held`: the names of the keys in the vault.
        """
        self._urls = {node.id: node.info.seed_url for node in self._world.nodes()}
        present = self._world.ids("vm")
        others = {*self._documents.ids(), *self._world.forgotten, *held}.difference(present)
        unneeded = unneeded_keys(self._world.images())
        for number, id_ in enumerate((*present, *others)):
            if number % AT_A_LOOK == AT_A_LOOK - 1:
                await asyncio.sleep(0)
            if self._world.vm_version(id_):
                if self._may_differ(id_) or driver.knows(id_):
                    self._submit(id_, driver)
            elif id_ in self._world.deleted_vms:
                if self._is_unsettled(id_):
                    self._submit(id_, driver)
                if id_ in held:
                    self._submit_key(id_, driver)
            elif id_ in held and id_ in unneeded:
                self._submit_key(id_, driver)

    def _begin(self, changes: Changes, driver: Driver) -> None:
        """Begin an item for each VM whose documents may differ, and for each vault key that is not needed any more."""
        vms = set(changes.of("vm")).union(*map(self._with_another_url, changes.of("node")))
        images = filter(None, map(self._world.image, changes.of("image")))
        keys = {key_of(each.registered_by) for each in images if each.phase in UNUSABLE and each.sealed_source}
        deleted = vms & self._world.deleted_vms
        for vm_id in vms:
            if vm_id in deleted or self._may_differ(vm_id) or driver.knows(vm_id):
                self._submit(vm_id, driver)
        for name in keys | deleted:
            self._submit_key(name, driver)

    def _submit(self, vm_id: str, driver: Driver) -> None:
        driver.submit(vm_id, partial(self._settle, vm_id), self._node_of(vm_id))

    def _submit_key(self, name: str, driver: Driver) -> None:
        driver.submit(f"key {name}", partial(self._destroy_key, name))

    def _with_another_url(self, node_id: str) -> Iterable[str]:
        """The VMs of a node whose URL for guests has changed: their documents are outdated."""
        node = self._world.node(node_id)
        if node is None:
            return ()
        before, self._urls[node_id] = self._urls.get(node_id), node.info.seed_url
        if before in (None, node.info.seed_url):
            return ()
        for vm_id in node.reservations:
            self._settled.pop(vm_id, None)
        return node.reservations

    def _is_unsettled(self, vm_id: str) -> bool:
        """Whether a deleted VM was forgotten, or has a document that is no tombstone, or an old one."""
        old = datetime.now(UTC) - TOMBSTONE_AGE
        return vm_id in self._world.forgotten or any(
            not self._documents.is_tombstone(key) or self._documents.stored_at(key) < old
            for key in self._documents.of(vm_id)
        )

    def _node_of(self, vm_id: str) -> str | None:
        """The node on which a VM is or, if it was deleted, a node on which it has a document."""
        loaded = self._world.vm(vm_id)
        if loaded is not None:
            return loaded.state.node if loaded.state is not None else None
        return next((key.node for key in self._documents.of(vm_id)), None)

    def _may_differ(self, vm_id: str) -> bool:
        """Whether the document of a VM that is not deleted may be outdated."""
        if self._settled.get(vm_id) == self._world.vm_version(vm_id):
            return False
        loaded = self._world.vm(vm_id)
        vm = loaded.state if loaded else None
        return vm is not None and bool(vm.node)

    async def _settle(self, vm_id: str) -> None:
        """Bring the documents of one VM up to date. After a conflict they are read again: another process wrote one."""
        try:
            if vm_id in self._world.deleted_vms:
                await self._settle_deleted(vm_id)
            else:
                await self._write(vm_id)
        except Exception as error:
            self._settled.pop(vm_id, None)
            if isinstance(error, Conflict):
                loaded = self._world.vm(vm_id)
                vm = loaded.state if loaded else None
                await self._documents.read_of(vm_id, Key(vm.node, "vm", vm_id) if vm and vm.node else None)
            raise

    async def _write(self, vm_id: str) -> None:
        loaded = self._world.vm(vm_id)
        vm = loaded.state if loaded else None
        node = self._world.node(vm.node) if vm and vm.node else None
        if loaded is None or vm is None or node is None or self._settled.get(vm_id) == loaded.tip.version:
            return
        if self._world.newer.has(loaded.tip.ref):
            return
        key = Key(node.id, "vm", vm.id)
        before = self._documents.get(key)
        if before is not None and before.generation > loaded.tip.version and not await self._is_newest(loaded):
            return
        for other in self._documents.of(vm.id) - {key}:
            elsewhere = self._documents.get(other)
            if elsewhere is None or self._documents.is_tombstone(other):
                continue
            forged = elsewhere.epoch >= vm.epoch and await self._is_newest(loaded)
            most = (vm.epoch, loaded.tip.version)
            await self._release(other, before=None if forged else vm.epoch, most=most)  # it is on another node now
        try:
            secret = await self._vault.seed_secret(vm.id, vm.boots)
            sources = {image: await self._source(image) for image in images_of(vm)}
        except Erased:
            return  # it was deleted in the meantime; that event will arrive soon
        base = self._seed_url or node.info.seed_url
        await self._documents.put(wanted(vm, loaded.tip.version, sources, node, f"{base}{secret}/"))
        self._settled[vm.id] = loaded.tip.version

    async def _source(self, image_id: str) -> ImageSource | None:
        """The part of a document about an image. Raises Erased."""
        image = self._world.image(image_id)
        return source_of(image, await full_source(image, self._vault)) if image is not None else None

    async def _is_newest(self, loaded: Loaded[Vm]) -> bool:
        """Whether the log has no newer event of a VM. Then a document that seems newer was not written by handlers."""
        if self._store is None:
            return False
        last = await self._store.newest(loaded.tip.ref.subject)
        return last is None or last.position <= loaded.tip.position

    async def _release(
        self, key: Key, *, before: int | None = None, most: tuple[int, int] = (MOST_GENERATION, MOST_GENERATION)
    ) -> None:
        """Replace a document by a tombstone, if its epoch is before this one (None: whatever its epoch is).

        `most`: the highest epoch and generation of the tombstone, because a node ignores what is older.
        """
        document = self._documents.get(key)
        if document is None or self._documents.is_tombstone(key):
            return
        if before is None or document.epoch < before:
            epoch, generation = min(document.epoch, most[0]), min(document.generation + 1, most[1])
            absent = {"desired": Desired.ABSENT, "generation": generation, "image": None, "seed_url": ""}
            if self._signs:
                absent["epoch"] = epoch
            await self._documents.put(document.model_copy(update=absent))

    async def _settle_deleted(self, vm_id: str) -> None:
        """Make all documents of a deleted VM tombstones, and remove tombstones that are old enough."""
        forgotten = self._world.forgotten.get(vm_id)
        needed = None  # the tombstone that stays until its node has removed the VM
        if forgotten is not None and forgotten.state is not None and forgotten.state.node is not None:
            needed = Key(forgotten.state.node, "vm", vm_id)
            await self._documents.put(tombstone(forgotten.state, forgotten.tip.version))
        for key in self._documents.of(vm_id):
            found = self._documents.get(key)
            if found is None:
                continue
            if found.desired is not Desired.ABSENT:
                log.warning("deleted vm was wanted again", vm=vm_id, node=found.node, desired=found.desired)
            if not self._documents.is_tombstone(key):
                await self._release(key)
            elif key != needed and datetime.now(UTC) - self._documents.stored_at(key) > TOMBSTONE_AGE:
                await self._documents.drop(key)
        self._settled.pop(vm_id, None)

    async def _destroy_key(self, name: str) -> None:
        await self._vault.destroy(name)
        log.info("keys destroyed", key=name)
