"""Dispatch: keeps the wanted documents of all nodes equal to the state in the log.

`wanted.py` makes the document of one VM. The loop compares it with the stored document in
NEBULA_WANTED, and replaces that if it differs. An older view of the world never overwrites a newer one (generation, and
the server's compare-and-store). The stream is followed, so a document that handlers did not write is replaced soon.

After the deletion of a VM its keys are destroyed. Its document stays as a tombstone for some time, because a NATS
server that is killed may bring back an older version of a document that was removed. The tombstone of a VM that was
forgotten on a lost node stays until the node reports that nothing of the VM is left.
"""

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

from nats.aio.client import Client

from domain.contract import Desired, ImageSource, Wanted
from domain.image import UNUSABLE
from domain.vm import Vm, images_of
from eventstore.documents import Document, Documents
from eventstore.log.envelope import Ref
from eventstore.log.follow import follow
from eventstore.log.jetstream import Stream, Unavailable
from eventstore.log.store import Conflict, EventStore, Loaded
from eventstore.parking.parking import WANTED, Parking
from eventstore.vault.vault import Erased, Vault
from handlers.images.credentials import full_source, key_of, unneeded_keys
from handlers.managers.driver import Driver
from handlers.managers.wanted import same, source_of, tombstone, wanted
from handlers.world.world import Changes, World
from runtime import logs, subjects
from runtime.bus.malformed import reason
from runtime.node_keys import MAC, WANTED as LABEL, NodeKeys
from runtime.tasks.patience import patiently

log = logs.get(__name__)

#: How long a tombstone is kept.
TOMBSTONE_AGE = timedelta(hours=1)
#: Maximum number of malformed documents that wait to be parked; the highest possible generation.
MOST_MALFORMED, MOST_GENERATION = 1000, 2**63 - 1
#: Seconds between two checks whether the connection is a new one; seconds between two reads of all documents.
LOOK, READ_AGAIN = 1.0, 300.0


class Key(NamedTuple):
    """What a document is about: one resource of a kind on one node."""

    node: str
    kind: str
    id: str


def about(document: Document) -> Key:
    node, kind, id_ = subjects.parse_wanted(document.subject)
    return Key(node, kind, id_)


def is_signed(keys: NodeKeys, document: Document) -> bool:
    """Whether handlers with these keys have written a document for its node."""
    return keys.valid(about(document).node, LABEL, document.subject, document.body, document.mac)


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
        self._documents = documents
        self._vault = vault
        self._world = world
        self._seed_url = seed_url
        self._store = store
        self._parking = parking
        self._keys = keys
        self._malformed: deque[tuple[Document, str]] = deque(maxlen=MOST_MALFORMED)
        self._writing: dict[Key, bytes] = {}
        self._watch = world.watch()
        self._written: dict[Key, tuple[Wanted, Document]] = {}
        self._keys_of: dict[str, set[Key]] = {}
        #: the position of each stored document; and for each VM the version that its documents are up to date with
        self._stored: dict[Key, int] = {}
        self._settled: dict[str, int] = {}
        self._vault_keys: set[str] = set()
        #: while all documents are being read: the keys of those that were written or read meanwhile
        self._touched: set[Key] | None = None
        self._connection = documents.connection
        self._read_at = 0.0

    def driver(self) -> Driver:
        return Driver("dispatch", self._look, watch=self._watch, period=LOOK)

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
        key = about(document)
        _, known = self._written.get(key, (None, None))
        mine = document.body in (self._writing.get(key), known.body if known is not None else None)
        if document.position > self._stored.get(key, 0) and not (mine and self._is_signed(document)):
            if not self._is_signed(document):
                log.warning("a wanted document that handlers did not sign is replaced", subject=document.subject)
            self._learn(document)
            self._settled.pop(key.id, None)
            self._watch.add(Ref(subjects.SYSTEM, key.kind, key.id))

    async def _look(self, changes: Changes, driver: Driver) -> None:
        """Write what differs. All documents are read again after a new connection, and periodically."""
        due = asyncio.get_running_loop().time() - self._read_at > READ_AGAIN
        if changes.everything or due or self._documents.connection != self._connection:
            await self._read()
            changes = Changes(changes.refs, everything=True)
        self._begin(changes, driver)
        while self._parking is not None and self._malformed:
            document, error = self._malformed[0]
            await self._parking.park(
                WANTED,
                str(document.position),
                subject=document.subject,
                position=document.position,
                error=error,
                size=len(document.body),
            )
            self._malformed.popleft()

    async def _read(self) -> None:
        """Read all documents of the stream. Meanwhile single documents may be written."""
        connection, newer = self._documents.connection, set[Key]()
        self._touched = newer
        try:
            held = await self._vault.held()
            stored = await self._documents.all(subjects.wanted_of())
        finally:
            self._touched = None
        for key in self._stored.keys() - newer:
            self._forget(key)
        for document in stored:
            if about(document) not in newer:
                self._learn(document)
        self._vault_keys, self._settled = held, {}
        self._connection = connection
        self._read_at = asyncio.get_running_loop().time()

    def _learn(self, document: Document) -> None:
        """Keep a document of the stream. A malformed one is parked, and replaced if there should be one."""
        key = about(document)
        self._forget(key)
        self._stored[key] = document.position
        try:
            found = Wanted.model_validate_json(document.body)
            if Key(found.node, found.kind, found.vm) != key:
                raise ValueError("node, kind or id differ from those in its subject")
        except ValueError as error:
            log.error("malformed wanted document", subject=document.subject, error=reason(error))
            self._malformed.append((document, reason(error)))
        else:
            self._keep(key, found, document)

    def _keep(self, key: Key, found: Wanted, document: Document) -> None:
        self._touch(key)
        self._written[key] = (found, document)
        self._stored[key] = document.position
        self._keys_of.setdefault(key.id, set()).add(key)

    def _forget(self, key: Key) -> None:
        self._touch(key)
        self._written.pop(key, None)
        self._stored.pop(key, None)
        of_vm = self._keys_of.get(key.id, set())
        of_vm.discard(key)
        if not of_vm:
            self._keys_of.pop(key.id, None)

    def _touch(self, key: Key) -> None:
        if self._touched is not None:
            self._touched.add(key)

    def _begin(self, changes: Changes, driver: Driver) -> None:
        """Begin an item for each VM whose documents may differ, and for each vault key that is not needed any more."""
        deleted = self._world.deleted_vms
        if changes.everything:
            present = {vm.id for vm in self._world.vms()}
            vms = present | ((self._keys_of.keys() | self._world.forgotten.keys() | self._vault_keys) & deleted)
            keys = self._vault_keys & unneeded_keys(self._world.images())
        else:
            vms = set(changes.of("vm"))
            images = filter(None, map(self._world.image, changes.of("image")))
            keys = {key_of(each.registered_by) for each in images if each.phase in UNUSABLE and each.sealed_source}
        for vm_id in vms:
            if vm_id in deleted or self._may_differ(vm_id) or driver.knows(vm_id):
                driver.submit(vm_id, partial(self._settle, vm_id))
        for name in keys | (vms & deleted):
            driver.submit(f"key {name}", partial(self._destroy_key, name))

    def _may_differ(self, vm_id: str) -> bool:
        """Whether the document of a VM that is not deleted may be outdated."""
        loaded = self._world.vm(vm_id)
        vm = loaded.state if loaded else None
        if loaded is None or vm is None or not vm.node:
            return False
        return self._settled.get(vm_id) != loaded.tip.version

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
                await self._read_of(vm_id)
            raise

    async def _read_of(self, vm_id: str) -> None:
        """Read the documents of one VM from the stream. Some may have been removed by another process."""
        loaded = self._world.vm(vm_id)
        own = Key(loaded.state.node, "vm", vm_id) if loaded and loaded.state and loaded.state.node else None
        before = {key: self._stored.get(key) for key in {*self._keys_of.get(vm_id, ()), own} if key is not None}
        stored = await self._documents.all(subjects.wanted("*", "vm", vm_id))
        for key in before.keys() - {about(document) for document in stored}:
            if self._stored.get(key) == before[key]:
                self._forget(key)
        for document in stored:
            self._learn(document)

    async def _write(self, vm_id: str) -> None:
        loaded = self._world.vm(vm_id)
        vm = loaded.state if loaded else None
        node = self._world.node(vm.node) if vm and vm.node else None
        if loaded is None or vm is None or node is None or self._settled.get(vm_id) == loaded.tip.version:
            return
        key = Key(node.id, "vm", vm.id)
        before = self._written.get(key)
        if before is not None and before[0].generation > loaded.tip.version and not await self._is_newest(loaded):
            return
        for other in self._keys_of.get(vm.id, set()) - {key}:
            elsewhere, _ = self._written.get(other, (None, None))
            if elsewhere is None or self._is_tombstone(other):
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
        await self._put(wanted(vm, loaded.tip.version, sources, node, f"{base}{secret}/"))
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

    async def _put(self, fresh: Wanted) -> None:
        """Replace the document, unless it is the same. Raises Conflict if another process replaced it."""
        key = Key(fresh.node, "vm", fresh.vm)
        before = self._written.get(key)
        if before is not None and same(before[0], fresh) and self._is_signed(before[1]):
            return
        subject = subjects.wanted(*key)
        body = fresh.model_dump_json().encode()
        self._writing[key] = body
        try:
            mac = self._keys.mac(key.node, LABEL, subject, body) if self._keys is not None else None
            position = await self._documents.put(subject, body, last=self._stored.get(key, 0), mac=mac)
            if self._stored.get(key, 0) > position:  # a newer one came with the stream before the reply
                raise Conflict(subject)
            self._keep(key, fresh, Document(subject, position, body, datetime.now(UTC), mac))
        finally:
            del self._writing[key]
        log.info("wanted written", vm=fresh.vm, node=fresh.node, desired=fresh.desired, generation=fresh.generation)

    def _is_signed(self, document: Document) -> bool:
        """Whether a document has the MAC that handlers make for its node now; always without keys."""
        if self._keys is None:
            return True
        node = about(document).node
        return self._keys.is_current(node, LABEL, document.subject, document.body, document.mac)

    def _is_tombstone(self, key: Key) -> bool:
        found = self._written.get(key)
        return found is not None and found[0].desired is Desired.ABSENT and self._is_signed(found[1])

    async def _release(
        self, key: Key, *, before: int | None = None, most: tuple[int, int] = (MOST_GENERATION, MOST_GENERATION)
    ) -> None:
        """Replace a document by a tombstone, if its epoch is before this one (None: whatever its epoch is).

        `most`: the highest epoch and generation of the tombstone, because a node ignores what is older.
        """
        document, _ = self._written.get(key, (None, None))
        if document is None or self._is_tombstone(key):
            return
        if before is None or document.epoch < before:
            epoch, generation = min(document.epoch, most[0]), min(document.generation + 1, most[1])
            absent = {"desired": Desired.ABSENT, "generation": generation, "image": None, "seed_url": ""}
            if self._keys is not None:
                absent["epoch"] = epoch
            await self._put(document.model_copy(update=absent))

    async def _settle_deleted(self, vm_id: str) -> None:
        """Make all documents of a deleted VM tombstones, and remove tombstones that are old enough."""
        forgotten = self._world.forgotten.get(vm_id)
        needed = None  # the tombstone that stays until its node has removed the VM
        if forgotten is not None and forgotten.state is not None and forgotten.state.node is not None:
            needed = Key(forgotten.state.node, "vm", vm_id)
            await self._put(tombstone(forgotten.state, forgotten.tip.version))
        for key in list(self._keys_of.get(vm_id, ())):
            if key not in self._written:
                continue
            found, document = self._written[key]
            if found.desired is not Desired.ABSENT:
                log.warning("deleted vm was wanted again", vm=vm_id, node=found.node, desired=found.desired)
            if not self._is_tombstone(key):
                await self._release(key)
            elif key != needed and datetime.now(UTC) - document.stored_at > TOMBSTONE_AGE:
                await self._documents.drop(document.subject)
                self._forget(key)
        self._settled.pop(vm_id, None)

    async def _destroy_key(self, name: str) -> None:
        await self._vault.destroy(name)
        self._vault_keys.discard(name)
        log.info("keys destroyed", key=name)
