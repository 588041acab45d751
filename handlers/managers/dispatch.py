"""Dispatch: each node's wanted documents say what the log says.

`wanted` derives the document of one VM, pure. The loop compares it with what stands in NEBULA_WANTED and replaces what
differs; an older view of the world never overwrites a newer one (generation, and the server's compare-and-store).
When a VM is gone its keys are destroyed, and its document stays as a tombstone for a good while: of a document that was
dropped, a server that is killed may bring back what it had overwritten. That of a VM which was forgotten on a lost node
stays until that node has said that nothing is left: unknown is not absent.
"""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from domain.contract import Desired, ImageSource, Wanted
from domain.image import OVER, Image
from domain.node import Node
from domain.vm import Verb, Vm
from eventstore.documents import Document, Documents
from eventstore.store import Conflict, Unavailable
from eventstore.vault import Erased, Vault, VaultUnavailable
from handlers.image_secrets import key_of, over, whole
from handlers.world import Changes, World
from runtime import logs, subjects

log = logs.get(__name__)

RETRY = 0.5
#: How long a tombstone stays.
GRAVE = timedelta(hours=1)
#: Seconds between looks whether the connection is another one, and between readings of all documents.
LOOK, READ_AGAIN = 1.0, 300.0


def mac_address(vm: str) -> str:
    """A locally administered MAC of QEMU's range, derived from the VM's id."""
    tail = hashlib.sha256(vm.encode()).digest()[:3]
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)


def wanted(vm: Vm, version: int, image: Image | None, node: Node, secret: str, image_url: str | None = None) -> Wanted:
    """The document that tells a VM's node what to want. `image_url`: the image's source with its credentials."""
    source = None
    if image is not None and image.format is not None and image.sha256 is not None:
        source = ImageSource(
            image=image.id,
            source=image_url or image.source,
            sha256=image.sha256,
            sha512=image.sha512,
            format=image.format,
            size_bytes=image.size_bytes or 0,
            virtual_size_bytes=image.virtual_size_bytes or 0,
            firmware=image.firmware,
            seed=image.seed,
        )
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
        resume=vm.pending is not None and vm.pending.verb is Verb.RESUME,
        vcpus=vm.spec.vcpus,
        memory_mib=vm.spec.memory_mib,
        disk_gib=vm.spec.disk_gib,
        disk=vm.disk,
        disk_made=vm.disk_made,
        image=source,
        seed_url=f"{node.info.seed_url}{secret}/",
        mac=mac_address(vm.id),
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
        mac=mac_address(vm.id),
    )


def same(one: Wanted, other: Wanted) -> bool:
    """Whether two documents want the same: the generation alone is no difference."""
    return one.model_copy(update={"generation": 0}) == other.model_copy(update={"generation": 0})


class Dispatcher:
    """Keeps the wanted documents true."""

    def __init__(self, documents: Documents, vault: Vault, world: World) -> None:
        self._documents = documents
        self._vault = vault
        self._world = world
        self._watch = world.watch()
        self._written: dict[str, tuple[Wanted, Document]] = {}
        self._seen: dict[str, int] = {}
        self._keys: set[str] = set()
        self._connection = documents.connection
        self._read_at = 0.0

    async def run(self) -> None:
        while True:
            changes = await self._changes()
            try:
                if changes.everything:
                    await self._read()
                await self.round(changes)
            except Conflict:
                self._watch.ring(everything=True)
            except (Unavailable, VaultUnavailable) as error:
                log.warning("dispatch waits for the bus", error=str(error))
                await asyncio.sleep(RETRY)
                self._watch.ring(everything=True)

    async def _changes(self) -> Changes:
        """What has changed. Everything may have, once the server was away; and it is looked at now and then anyway."""
        while True:
            try:
                async with asyncio.timeout(LOOK):
                    return await self._watch.next()
            except TimeoutError:
                late = asyncio.get_running_loop().time() - self._read_at > READ_AGAIN
                if late or self._documents.connection != self._connection:
                    self._watch.ring(everything=True)

    async def _read(self) -> None:
        """Learn what stands in the stream."""
        self._connection = self._documents.connection
        self._read_at = asyncio.get_running_loop().time()
        self._written = {}
        self._seen = {}
        self._keys = await self._vault.held()
        for document in await self._documents.all(subjects.wanted_of()):
            try:
                found = Wanted.model_validate_json(document.body)
            except ValidationError as error:
                log.error("wanted document unreadable", subject=document.subject, error=str(error))
                continue
            self._written[found.vm] = (found, document)

    async def round(self, changes: Changes) -> None:
        """Write what differs, bury what is over."""
        gone = self._world.deleted_vms
        if changes.everything:
            for vm in self._world.vms():
                await self._write(vm.id)
            for vm_id in (self._written.keys() | self._world.forgotten.keys()) & gone:
                await self._bury(vm_id)
            for key in self._keys & (gone | over(self._world.images())):
                await self._destroy_key(key)
        else:
            for image in filter(None, map(self._world.image, changes.of("image"))):
                if image.phase in OVER and image.sealed_source is not None:
                    await self._destroy_key(key_of(image.registered_by))
            for vm_id in changes.of("vm"):
                if vm_id in gone:
                    await self._bury(vm_id)
                    await self._destroy_key(vm_id)
                else:
                    await self._write(vm_id)

    async def _write(self, vm_id: str) -> None:
        loaded = self._world.vm(vm_id)
        vm = loaded.state if loaded else None
        node = self._world.node(vm.node) if vm and vm.node else None
        if loaded is None or vm is None or node is None or self._seen.get(vm_id) == loaded.tip.version:
            return
        before = self._written.get(vm.id)
        if before is not None and before[0].generation > loaded.tip.version:
            return
        try:
            secret = await self._vault.seed_secret(vm.id, vm.boots)
            image = self._world.image(vm.image)
            url = await whole(image, self._vault) if image is not None else None
        except Erased:
            return  # deleted in the meantime; the world is about to learn it
        await self._put(wanted(vm, loaded.tip.version, image, node, secret, url))
        self._seen[vm.id] = loaded.tip.version

    async def _put(self, fresh: Wanted) -> None:
        """Replace the document, unless it says the same."""
        before = self._written.get(fresh.vm)
        if before is not None and same(before[0], fresh):
            return
        subject = subjects.wanted(fresh.node, fresh.vm)
        body = fresh.model_dump_json().encode()
        position = await self._documents.put(subject, body, last=before[1].position if before else 0)
        self._written[fresh.vm] = (fresh, Document(subject, position, body, datetime.now(UTC)))
        log.info("wanted written", vm=fresh.vm, node=fresh.node, desired=fresh.desired, generation=fresh.generation)

    async def _bury(self, vm_id: str) -> None:
        """See to it that the document of a VM that is gone is a tombstone, and drop one that stood long enough."""
        grave = self._world.forgotten.get(vm_id)
        if grave is not None and grave.state is not None:
            await self._put(tombstone(grave.state, grave.tip.version))
        elif (before := self._written.get(vm_id)) is not None:
            wish, document = before
            if wish.desired is not Desired.ABSENT:
                log.warning("deleted vm was wanted again", vm=vm_id, node=wish.node, desired=wish.desired)
                absent = {"desired": Desired.ABSENT, "generation": wish.generation + 1, "image": None, "seed_url": ""}
                await self._put(wish.model_copy(update=absent))
            elif datetime.now(UTC) - document.stored_at > GRAVE:
                await self._documents.drop(document.subject)
                del self._written[vm_id]
        self._seen.pop(vm_id, None)

    async def _destroy_key(self, name: str) -> None:
        await self._vault.destroy(name)
        self._keys.discard(name)
        log.info("keys destroyed", key=name)
