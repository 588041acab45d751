"""What handlers want of a node: one document for each thing that the node is to have.

`Wanted` is the whole desired state of one VM on one node; the newest document counts and older ones mean nothing.
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
"""The feature of a node that boots VMs from a rescue disk."""
#: All that a document of a VM may need of a node, as this version knows it.
VM_FEATURES = frozenset({WATCHDOG, RESCUE})


class ImageSource(Message):
    """Where a node gets the base image, how it knows that it got it right, and how guests boot from it."""

    image: Slug
    source: Source = Field(description="an absolute path on the node, or an http(s) URL")
    fetch: Fetch = Field(default=Fetch.SOURCE, description="documents of earlier versions do not say it")
    sha256: Sha256
    sha512: Sha512 | None = None
    format: Literal["qcow2", "raw"]
    size_bytes: Size
    virtual_size_bytes: Size
    firmware: Firmware = Firmware.BIOS
    seed: SeedMedium = SeedMedium.HTTP


class Rescue(Message):
    """What a VM in rescue boots from: a disk of its own, made from this image; the VM's disk is the second one.

    `disk` tells its rescue disks from each other: those of a lower count are deleted.
    """

    image: ImageSource
    disk: Counter


class Place(NamedTuple):
    """Where a document stands: in which stream (microseconds from 1970 to when it was made), and its position there."""

    stream: int
    position: int

    def after(self, other: "Place") -> bool:
        """Whether it is later in the same stream."""
        return self.stream == other.stream and self.position > other.position


NOWHERE = Place(0, 0)


class Document(Message):
    """What every document says, whatever kind of thing it is about. Its subject names node, kind and id as well.

    `epoch` names the placement, and stands in reports. `features` names what the node has to know. A node that knows
    the kind or a feature not refuses the document as a whole, in a report.
    """

    kind: KindName
    node: Slug
    epoch: Counter
    generation: Position = Field(description="the version of the aggregate this was derived from")
    features: Features = ()


class Wanted(Document):
    """The desired state of one VM on one node.

    `boots` counts how often the VM was told to boot: a domain started for a lower count is to be stopped and started
    again. A guest that is to end has `grace_seconds` to do so by itself, counted by the node from when it first saw
    that `force_after`, which names the request; without `force_after` none at all. `resume` is set while somebody waits
    for it to go on: also a domain that stands still after an I/O error is then resumed. `disk` counts how often its
    disk was to be made: a domain on an earlier one is ended, and earlier disks are deleted once the new one is made
    from the image. `disk_made` is the last of them that a domain is known to have run on: gone or not, it is never made
    again. `seed_url` is where its cloud-init finds its configuration; it holds the secret of this boot. `epoch` names
    the placement, and stands in reports. `features` names what the node has to know; one that
    lacks a feature refuses.

    Which of two documents is newer is said by their places in the stream, since anybody's numbers can be high.
    """

    kind: Literal["vm"] = "vm"  # documents of earlier versions do not say it
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
    rescue: Rescue | None = None
    seed_url: SeedUrl = Field(description="empty only in a tombstone")
    mac: Mac
    watchdog: Watchdog = Watchdog.DISABLED
    place: SkipJsonSchema[Place] = Field(default=NOWHERE, exclude=True)
    """Never part of the document: the node fills in where it found it."""

    @property
    def boot_image(self) -> ImageSource | None:
        """The image under the disk that its guest boots from."""
        return self.image if self.rescue is None else self.rescue.image
