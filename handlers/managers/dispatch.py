"""Dispatch: each node's wanted documents say what the log says.

`wanted` derives the document of one VM, pure. The loop compares it with what stands in NEBULA_WANTED and replaces what
differs; an older view of the world never overwrites a newer one (generation, and the server's compare-and-store). A
document that says more than the log does was not written by handlers, and is replaced like any other that differs: the
stream is followed, so that it does not stand for long.
When a VM is gone its keys are destroyed, and its document stays as a tombstone for a good while: of a document that was
dropped, a server that is killed may bring back what it had overwritten. That of a VM which was forgotten on a lost node
stays until that node has said that nothing is left: unknown is not absent.
"""

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

from nats.aio.client import Client

from domain import mac
from domain.contract import Desired, ImageSource, Wanted
from domain.contract.wanted import Rescue
from domain.image import UNUSABLE, Image
from domain.node import Node
from domain.vm import Vm
from domain.vm.features import features
from domain.vm.verbs import resume
from eventstore.documents import Document, Documents
from eventstore.log.envelope import Ref
from eventstore.log.follow import follow
from eventstore.log.jetstream import Stream, Unavailable
from eventstore.log.store import Conflict, EventStore, Loaded
from eventstore.parking.parking import WANTED, Parking
from eventstore.vault.vault import Erased, Vault
from handlers.images.credentials import full_source, key_of, unneeded_keys
from handlers.managers.driver import Driver
from handlers.world.world import Changes, World
from runtime import logs, subjects
from runtime.bus.malformed import reason
from runtime.tasks.patience import patiently

log = logs.get(__name__)

#: How long a tombstone stays.
GRAVE = timedelta(hours=1)
#: Documents that make no sense and wait to be parked; and the highest generation there can be.
MOST_MALFORMED, MOST_GENERATION = 1000, 2**63 - 1
#: Seconds between looks whether the connection is another one, and between readings of all documents.
LOOK, READ_AGAIN = 1.0, 300.0


def source_of(image: Image | None, url: str | None = None) -> ImageSource | None:
    """What a node is told of an image. `url`: its source with its credentials."""
    if image is None or image.format is None or image.sha256 is None:
        return None
    return ImageSource(
        image=image.id,
        source=url or image.source,
        fetch=image.fetch,
        sha256=image.sha256,
        sha512=image.sha512,
        format=image.format,
        size_bytes=image.size_bytes or 0,
        virtual_size_bytes=image.virtual_size_bytes or 0,
        firmware=image.firmware,
        seed=image.seed,
    )


def wanted(
    vm: Vm, version: int, image: ImageSource | None, node: Node, seed_url: str, rescue: ImageSource | None = None
) -> Wanted:
    """The document that tells a VM's node what to want. `rescue`: what its rescue disk is made from."""
    return Wanted(
        vm=vm.id,
        project=vm.project,
        name=vm.name,
        node=node.id,
        epoch=vm.epoch,
        generation=version,
        desired=vm.desired,
        boots=vm.boots,
        force_after=vm.force_after,
        grace_seconds=vm.grace_seconds,
        resume=vm.pending is not None and vm.pending.verb == resume.NAME,
        vcpus=vm.spec.vcpus,
        memory_mib=vm.spec.memory_mib,
        disk_gib=vm.spec.disk_gib,
        disk=vm.disk,
        disk_made=vm.disk_made,
        image=image,
        rescue=Rescue(image=rescue, disk=vm.rescue_disk) if rescue is not None else None,
        seed_url=seed_url,
        mac=mac.of(vm),
        watchdog=vm.watchdog,
        features=features(vm) if vm.desired is Desired.ON else (),  # what need not be started needs nothing
    )


def tombstone(vm: Vm, version: int) -> Wanted:
    """The document that makes the node of a forgotten VM let go of it, should it come back. It holds no secret."""
    return Wanted(
        vm=vm.id,
        project=vm.project,
        name=vm.name,
        node=vm.node or "",
        epoch=vm.epoch,
        generation=version,
        desired=Desired.ABSENT,
        boots=vm.boots,
        vcpus=vm.spec.vcpus,
        memory_mib=vm.spec.memory_mib,
        disk_gib=vm.spec.disk_gib,
        seed_url="",
        mac=mac.of(vm),
    )


def same(one: Wanted, other: Wanted) -> bool:
    """Whether two documents want the same: the generation alone is no difference."""
    return one.model_copy(update={"generation": 0}) == other.model_copy(update={"generation": 0})


class Key(NamedTuple):
    """What a document is about: one thing of a kind, on one node."""

    node: str
    kind: str
    id: str


def about(document: Document) -> Key:
    node, kind, id_ = subjects.parse_wanted(document.subject)
    return Key(node, kind, id_)


class Dispatcher:
    """Keeps the wanted documents true. One that cannot be written is tried again later and delays no other.

    `seed_url`: where all guests find their data source; without, each node's own. `store`: asked whether a document can
    be newer than this world; without, it always can.
    """

    def __init__(
        self,
        documents: Documents,
        vault: Vault,
        world: World,
        seed_url: str | None = None,
        store: EventStore | None = None,
        parking: Parking | None = None,
    ) -> None:
        self._documents = documents
        self._vault = vault
        self._world = world
        self._seed_url = seed_url
        self._store = store
        self._parking = parking
        self._malformed: deque[tuple[Document, str]] = deque(maxlen=MOST_MALFORMED)
        self._writing: dict[Key, bytes] = {}
        self._watch = world.watch()
        self._written: dict[Key, tuple[Wanted, Document]] = {}
        self._keys_of: dict[str, set[Key]] = {}
        self._stood: dict[Key, int] = {}
        self._seen: dict[str, int] = {}
        self._vault_keys: set[str] = set()
        #: while all documents are being read: those that were written or read meanwhile, which is newer
        self._touched: set[Key] | None = None
        self._connection = documents.connection
        self._read_at = 0.0

    def driver(self) -> Driver:
        return Driver("dispatch", self._look, watch=self._watch, period=LOOK)

    async def notice(self, nc: Client) -> None:
        """Follow the stream, for ever, and settle the documents that this process did not write."""
        stream = Stream(nc, subjects.WANTED)
        after = await patiently("the wanted documents", stream.last_position, (Unavailable,))
        async for batch in follow(nc, after, [subjects.wanted_of()], stream=subjects.WANTED):
            for recorded in batch:
                self.found(Document(recorded.subject, recorded.position, recorded.body, recorded.stored_at))
            self._watch.ring()

    def found(self, document: Document) -> None:
        """A document that stands in the stream now, whoever wrote it."""
        key = about(document)
        _, known = self._written.get(key, (None, None))
        mine = document.body in (self._writing.get(key), known.body if known is not None else None)
        if document.position > self._stood.get(key, 0) and not mine:
            self._learn(document)
            self._seen.pop(key.id, None)
            self._watch.add(Ref(subjects.SYSTEM, key.kind, key.id))

    async def _look(self, changes: Changes, driver: Driver) -> None:
        """Everything may have changed, once the server was away; and it is looked at now and then anyway."""
        late = asyncio.get_running_loop().time() - self._read_at > READ_AGAIN
        if changes.everything or late or self._documents.connection != self._connection:
            await self._read()
            changes = Changes(changes.refs, everything=True)
        self._judge(changes, driver)
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
        """Learn what stands in the stream. Meanwhile single documents are written on."""
        connection, newer = self._documents.connection, set[Key]()
        self._touched = newer
        try:
            held = await self._vault.held()
            stood = await self._documents.all(subjects.wanted_of())
        finally:
            self._touched = None
        for key in self._stood.keys() - newer:
            self._forget(key)
        for document in stood:
            if about(document) not in newer:
                self._learn(document)
        self._vault_keys, self._seen = held, {}
        self._connection = connection
        self._read_at = asyncio.get_running_loop().time()

    def _learn(self, document: Document) -> None:
        """Take in what stands on a subject. What makes no sense is replaced by what is wanted now, if anything is."""
        key = about(document)
        self._forget(key)
        self._stood[key] = document.position
        try:
            found = Wanted.model_validate_json(document.body)
            if Key(found.node, found.kind, found.vm) != key:
                raise ValueError("it is about something else than its subject")
        except ValueError as error:
            log.error("wanted document unreadable", subject=document.subject, error=reason(error))
            self._malformed.append((document, reason(error)))
        else:
            self._keep(key, found, document)

    def _keep(self, key: Key, found: Wanted, document: Document) -> None:
        self._touch(key)
        self._written[key] = (found, document)
        self._stood[key] = document.position
        self._keys_of.setdefault(key.id, set()).add(key)

    def _forget(self, key: Key) -> None:
        self._touch(key)
        self._written.pop(key, None)
        self._stood.pop(key, None)
        of_vm = self._keys_of.get(key.id, set())
        of_vm.discard(key)
        if not of_vm:
            self._keys_of.pop(key.id, None)

    def _touch(self, key: Key) -> None:
        if self._touched is not None:
            self._touched.add(key)

    def _judge(self, changes: Changes, driver: Driver) -> None:
        """Write what differs, bury what is over."""
        gone = self._world.deleted_vms
        if changes.everything:
            living = {vm.id for vm in self._world.vms()}
            vms = living | ((self._keys_of.keys() | self._world.forgotten.keys() | self._vault_keys) & gone)
            keys = self._vault_keys & unneeded_keys(self._world.images())
        else:
            vms = set(changes.of("vm"))
            images = filter(None, map(self._world.image, changes.of("image")))
            keys = {key_of(each.registered_by) for each in images if each.phase in UNUSABLE and each.sealed_source}
        for vm_id in vms:
            if vm_id in gone or self._asks(vm_id) or driver.knows(vm_id):
                driver.each(vm_id, partial(self._settle, vm_id))
        for name in keys | (vms & gone):
            driver.each(f"key {name}", partial(self._destroy_key, name))

    def _asks(self, vm_id: str) -> bool:
        """Whether something may have to be written for a VM that lives."""
        loaded = self._world.vm(vm_id)
        vm = loaded.state if loaded else None
        return loaded is not None and vm is not None and bool(vm.node) and self._seen.get(vm_id) != loaded.tip.version

    async def _settle(self, vm_id: str) -> None:
        """See to the documents of one VM. After a conflict they are read again: somebody else wrote one."""
        try:
            if vm_id in self._world.deleted_vms:
                await self._bury(vm_id)
            else:
                await self._write(vm_id)
        except Exception as error:
            self._seen.pop(vm_id, None)
            if isinstance(error, Conflict):
                await self._read_of(vm_id)
            raise

    async def _read_of(self, vm_id: str) -> None:
        """Learn what stands in the stream of one VM, and what does not any more: somebody may have removed it."""
        loaded = self._world.vm(vm_id)
        own = Key(loaded.state.node, "vm", vm_id) if loaded and loaded.state and loaded.state.node else None
        before = {key: self._stood.get(key) for key in {*self._keys_of.get(vm_id, ()), own} if key is not None}
        stand = await self._documents.all(subjects.wanted("*", "vm", vm_id))
        for key in before.keys() - {about(document) for document in stand}:
            if self._stood.get(key) == before[key]:
                self._forget(key)
        for document in stand:
            self._learn(document)

    async def _write(self, vm_id: str) -> None:
        loaded = self._world.vm(vm_id)
        vm = loaded.state if loaded else None
        node = self._world.node(vm.node) if vm and vm.node else None
        if loaded is None or vm is None or node is None or self._seen.get(vm_id) == loaded.tip.version:
            return
        key = Key(node.id, "vm", vm.id)
        before = self._written.get(key)
        if before is not None and before[0].generation > loaded.tip.version and not await self._is_newest(loaded):
            return
        for other in self._keys_of.get(vm.id, set()) - {key}:
            there, _ = self._written.get(other, (None, None))
            if there is None or there.desired is Desired.ABSENT:
                continue
            forged = there.epoch >= vm.epoch and await self._is_newest(loaded)
            await self._release(other, before=None if forged else vm.epoch)  # it has moved to another node
        try:
            secret = await self._vault.seed_secret(vm.id, vm.boots)
            image = await self._source(vm.image)
            rescue = await self._source(vm.rescue) if vm.rescue is not None else None
        except Erased:
            return  # deleted in the meantime; the world is about to learn it
        base = self._seed_url or node.info.seed_url
        await self._put(wanted(vm, loaded.tip.version, image, node, f"{base}{secret}/", rescue))
        self._seen[vm.id] = loaded.tip.version

    async def _source(self, image_id: str) -> ImageSource | None:
        """What a node is told of an image. Raises Erased."""
        image = self._world.image(image_id)
        return source_of(image, await full_source(image, self._vault)) if image is not None else None

    async def _is_newest(self, loaded: Loaded[Vm]) -> bool:
        """Whether the log knows no more of a VM: a document that seems newer was not written by handlers then."""
        if self._store is None:
            return False
        last = await self._store.newest(loaded.tip.ref.subject)
        return last is None or last.position <= loaded.tip.position

    async def _put(self, fresh: Wanted) -> None:
        """Replace the document, unless it says the same. Raises Conflict when somebody else replaced it."""
        key = Key(fresh.node, "vm", fresh.vm)
        before = self._written.get(key)
        if before is not None and same(before[0], fresh):
            return
        subject = subjects.wanted(*key)
        body = fresh.model_dump_json().encode()
        self._writing[key] = body
        try:
            position = await self._documents.put(subject, body, last=self._stood.get(key, 0))
            if self._stood.get(key, 0) > position:  # seen in the stream before the answer came
                raise Conflict(subject)
            self._keep(key, fresh, Document(subject, position, body, datetime.now(UTC)))
        finally:
            del self._writing[key]
        log.info("wanted written", vm=fresh.vm, node=fresh.node, desired=fresh.desired, generation=fresh.generation)

    async def _release(self, key: Key, *, before: int | None = None) -> None:
        """See to it that a node lets go of a VM, where it has it from an epoch before this one."""
        wish, _ = self._written.get(key, (None, None))
        if wish is not None and wish.desired is not Desired.ABSENT and (before is None or wish.epoch < before):
            generation = min(wish.generation + 1, MOST_GENERATION)
            absent = {"desired": Desired.ABSENT, "generation": generation, "image": None, "seed_url": ""}
            await self._put(wish.model_copy(update=absent))

    async def _bury(self, vm_id: str) -> None:
        """See to it that the documents of a VM that is gone are tombstones, and drop those that stood long enough."""
        grave = self._world.forgotten.get(vm_id)
        waits = None
        if grave is not None and grave.state is not None and grave.state.node is not None:
            waits = Key(grave.state.node, "vm", vm_id)
            await self._put(tombstone(grave.state, grave.tip.version))
        for key in list(self._keys_of.get(vm_id, ())):
            if key not in self._written:
                continue
            wish, document = self._written[key]
            if wish.desired is not Desired.ABSENT:
                log.warning("deleted vm was wanted again", vm=vm_id, node=wish.node, desired=wish.desired)
                await self._release(key)
            elif key != waits and datetime.now(UTC) - document.stored_at > GRAVE:
                await self._documents.drop(document.subject)
                self._forget(key)
        self._seen.pop(vm_id, None)

    async def _destroy_key(self, name: str) -> None:
        await self._vault.destroy(name)
        self._vault_keys.discard(name)
        log.info("keys destroyed", key=name)
