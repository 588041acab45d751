"""Wanted documents: the desired state that handlers write for a node, one document for each resource.

`Wanted` is the whole desired state of one VM on one node. Only the newest document counts.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, Field
from pydantic.json_schema import SkipJsonSchema

from domain.base import Hostname, Message, Slug, Uuid
from domain.contract.values import (
    WATCHDOG,
    Counter,
    Desired,
    DiskGib,
    Feature,
    Features,
    Fetch,
    Firmware,
    KindName,
    Mac,
    MemoryMib,
    Position,
    SeedMedium,
    SeedUrl,
    Sha256,
    Sha512,
    Size,
    Source,
    Vcpus,
    Watchdog,
)

RESCUE = "rescue"
"""The feature of nodes that can boot a VM from a rescue disk."""
OWN = "root"
"""The series of the VM's own disks."""
SERIES = (OWN, "rescue")
"""The uses of disks. Each has its own numbers; a disk that is not the VM's own has the number of a boot."""


class Needs(NamedTuple):
    """Marks a field of a document (`Annotated`): if the field is set, the node needs this feature."""

    feature: Feature


def needs_of(document: type["Document"]) -> dict[str, Feature]:
    """The fields of a document that need a feature, with the name of the feature."""
    return {
        name: note.feature
        for name, info in document.model_fields.items()
        for note in info.metadata
        if isinstance(note, Needs)
    }


class ImageSource(Message):
    """Where a node gets a base image, the digests and sizes that it checks, and how guests boot from it."""

    image: Slug
    source: Source = Field(description="an absolute path on the node, or an http(s) URL")
    fetch: Fetch = Field(default=Fetch.SOURCE, description="missing in documents of earlier versions")
    sha256: Sha256
    sha512: Sha512 | None = None
    format: Literal["qcow2", "raw"]
    size_bytes: Size
    virtual_size_bytes: Size
    firmware: Firmware = Firmware.BIOS
    seed: SeedMedium = SeedMedium.HTTP


class Rescue(Message):
    """The rescue disk of a VM in rescue, made from this image. The VM boots from it; the VM's own disk is the second.

    `disk`: the number of the rescue disk. The node deletes rescue disks with a lower number.
    """

    image: ImageSource
    disk: Counter


class VmDisk(NamedTuple):
    """A disk of a VM: its series, its number in the series, and the image that it is made from."""

    series: str
    number: int
    image: ImageSource | None


class Place(NamedTuple):
    """The place of a document: its stream (by the time of its creation, in microseconds since 1970), and position."""

    stream: int
    position: int

    def after(self, other: "Place") -> bool:
        """Whether it is later in the same stream."""
        return self.stream == other.stream and self.position > other.position


NOWHERE = Place(0, 0)


class Document(Message):
    """The fields that the documents of all kinds have. The subject of a document also names node, kind and id.

    `epoch`: identifies the placement; reports repeat it. `features`: what the node has to know. A node that does not
    know the kind or a feature refuses the whole document, in a report.
    """

    kind: KindName
    node: Slug
    epoch: Counter
    generation: Position = Field(description="the version of the aggregate from which the document was made")
    features: Features = ()


class Wanted(Document):
    """The desired state of one VM on one node.

    - `boots`: how often the VM was ordered to boot. A domain that was started for a lower count is stopped and started.
    - `force_after`, `grace_seconds`: a guest that is to shut down has `grace_seconds` for that. The node counts them
      from when it first saw this `force_after`, which identifies the request. Without `force_after` there is no grace.
    - `resume`: a resume is pending. A domain that QEMU paused after an I/O error is then resumed as well.
    - `disk`: the number of its disk. A domain that runs on an earlier disk is stopped; earlier disks are deleted once
      the new one is made from the image.
    - `disk_made`: the last disk on which a domain is known to have run. It is never made again, even if it is missing.
    - `seed_url`: where cloud-init gets its seed. It contains the secret of this boot.

    The newer of two documents is the one with the later place in the stream, not the one with higher numbers.
    """

    kind: Literal["vm"] = "vm"  # missing in documents of earlier versions
    vm: Uuid
    project: Slug
    name: Hostname
    desired: Desired
    boots: Counter
    force_after: AwareDatetime | None = None
    grace_seconds: Annotated[float, Field(ge=0, le=86400)] | None = None
    resume: bool = False
    vcpus: Vcpus
    memory_mib: MemoryMib
    disk_gib: DiskGib
    disk: Counter = 1
    disk_made: Counter = 0
    image: ImageSource | None = Field(default=None, description="None only in a tombstone")
    rescue: Annotated[Rescue | None, Needs(RESCUE)] = None
    seed_url: SeedUrl = Field(description="empty only in a tombstone")
    mac: Mac
    watchdog: Annotated[Watchdog, Needs(WATCHDOG)] = Watchdog.DISABLED
    place: SkipJsonSchema[Place] = Field(default=NOWHERE, exclude=True)
    """Not a part of the document: the node that reads it fills it in."""

    @property
    def disks(self) -> tuple[VmDisk, ...]:
        """The disks of the domain, in order: the guest boots from the first. The last is the VM's own."""
        own = VmDisk(OWN, self.disk, self.image)
        return (own,) if self.rescue is None else (VmDisk("rescue", self.rescue.disk, self.rescue.image), own)

    @property
    def boot_image(self) -> ImageSource | None:
        """The base image of the disk that the guest boots from."""
        return self.disks[0].image


VM_NEEDS = needs_of(Wanted)
VM_FEATURES = frozenset(VM_NEEDS.values())
"""All features that a VM's document may need, in this version."""
