"""Dispatch: each node's wanted documents say what the log says.

`wanted` derives the document of one VM, pure. The loop compares it with what stands in NEBULA_WANTED and replaces what
differs; an older view of the world never overwrites a newer one (generation, and the server's compare-and-store).
When a VM is gone its document is dropped and its keys are destroyed.
"""

import asyncio
import hashlib

from pydantic import ValidationError

from domain.contract import Desired, ImageSource, Wanted
from domain.image import Image
from domain.node import Node
from domain.vm import Verb, Vm
from eventstore.documents import Documents
from eventstore.store import Conflict, Unavailable
from eventstore.vault import Erased, Vault, VaultUnavailable
from handlers.world import Changes, World
from runtime import logs, subjects

log = logs.get(__name__)

RETRY = 0.5


def mac_address(vm: str) -> str:
    """A locally administered MAC of QEMU's range, derived from the VM's id."""
    tail = hashlib.sha256(vm.encode()).digest()[:3]
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)


def wanted(vm: Vm, version: int, image: Image | None, node: Node, secret: str) -> Wanted:
    """The document that tells a VM's node what to want."""
    source = None
    if image is not None and image.format is not None:
        source = ImageSource(
            image=image.id,
            source=image.source,
            sha256=image.sha256,
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
        image=source,
        seed_url=f"{node.info.seed_url}{secret}/",
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
        self._written: dict[str, tuple[Wanted, int]] = {}
        self._seen: dict[str, int] = {}
        self._keys: set[str] = set()

    async def run(self) -> None:
        while True:
            changes = await self._watch.next()
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

    async def _read(self) -> None:
        """Learn what stands in the stream."""
        self._written = {}
        self._seen = {}
        self._keys = await self._vault.held()
        for document in await self._documents.all(subjects.wanted_of()):
            try:
                found = Wanted.model_validate_json(document.body)
            except ValidationError as error:
                log.error("wanted document unreadable", subject=document.subject, error=str(error))
                continue
            self._written[found.vm] = (found, document.position)

    async def round(self, changes: Changes) -> None:
        """Write what differs, drop what is over."""
        gone = self._world.deleted_vms
        if changes.everything:
            for vm in self._world.vms():
                await self._write(vm.id)
            for vm_id in (self._keys | self._written.keys()) & gone:
                await self._forget(vm_id)
        else:
            for vm_id in changes.of("vm"):
                await (self._forget(vm_id) if vm_id in gone else self._write(vm_id))

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
        except Erased:
            return  # deleted in the meantime; the world is about to learn it
        fresh = wanted(vm, loaded.tip.version, self._world.image(vm.image), node, secret)
        if before is None or not same(before[0], fresh):
            subject = subjects.wanted(node.id, vm.id)
            position = await self._documents.put(
                subject, fresh.model_dump_json().encode(), last=before[1] if before else 0
            )
            self._written[vm.id] = (fresh, position)
            log.info("wanted written", vm=vm.id, node=node.id, desired=fresh.desired, generation=fresh.generation)
        self._seen[vm.id] = loaded.tip.version

    async def _forget(self, vm_id: str) -> None:
        before = self._written.get(vm_id)
        if before is not None:
            if before[0].desired is not Desired.ABSENT:
                log.warning("deleted vm was still wanted", vm=vm_id)
            await self._documents.drop(subjects.wanted(before[0].node, vm_id))
            del self._written[vm_id]
        await self._vault.destroy(vm_id)
        self._seen.pop(vm_id, None)
        log.info("vm forgotten", vm=vm_id)
