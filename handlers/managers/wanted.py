"""What a node should want of a VM: the document that follows from the VM's state. Pure."""

from collections.abc import Mapping

from domain import mac
from domain.contract import Desired, ImageSource, Wanted
from domain.contract.wanted import Rescue
from domain.image import Image
from domain.node import Node
from domain.vm import Vm
from domain.vm.features import features
from domain.vm.verbs import resume


def source_of(image: Image | None, url: str | None = None) -> ImageSource | None:
    """The part of a document about an image. `url`: its source with credentials."""
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


def wanted(vm: Vm, version: int, sources: Mapping[str, ImageSource | None], node: Node, seed_url: str) -> Wanted:
    """The wanted document of a VM. `sources`: the parts of the document about the VM's images, by their ids."""
    rescue = sources.get(vm.rescue) if vm.rescue is not None else None
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
        image=sources[vm.image],
        rescue=Rescue(image=rescue, disk=vm.rescue_disk) if rescue is not None else None,
        seed_url=seed_url,
        mac=mac.of(vm),
        watchdog=vm.watchdog,
        features=features(vm) if vm.desired is Desired.ON else (),  # a VM that is not started needs no features
    )


def tombstone(vm: Vm, version: int) -> Wanted:
    """The document of a forgotten VM: its node removes the VM if the node comes back. It contains no secret."""
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
    """Whether two documents want the same. They may differ in the generation."""
    return one.model_copy(update={"generation": 0}) == other.model_copy(update={"generation": 0})
