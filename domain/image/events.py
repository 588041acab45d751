"""What happened to an image."""

from typing import Literal

from pydantic import AwareDatetime, Field

from domain.base import Event, Sealed
from domain.contract import Fetch, Firmware, SeedMedium


class ImageEvent(Event):
    at: AwareDatetime
    operation: str | None = None


class ImageRegistered(ImageEvent):
    TOPIC = "nebula.image.ImageRegistered"
    operation: str
    fingerprint: str
    deadline: AwareDatetime
    image: str
    name: str
    source: str
    sealed_source: Sealed | None = Field(
        default=None, description="the whole source, if `source` was cut because it contains credentials"
    )
    sha256: str | None = None
    sha512: str | None = None
    distribution: str | None = None
    release: str | None = None
    architecture: str = "x86_64"
    description: str | None = None
    project: str | None = None
    firmware: Firmware = Field(default=Firmware.BIOS, description="the firmware that boots its guests")
    seed: SeedMedium = Field(default=SeedMedium.HTTP, description="how cloud-init in its guests gets its data")
    fetch: Fetch = Field(default=Fetch.PLATFORM, description="where nodes get it from")


class ImageProgressed(ImageEvent):
    """The platform is reading its bytes. Such events are rare, as each is kept for ever. Each moves the deadline."""

    TOPIC = "nebula.image.ImageProgressed"
    bytes_done: int
    bytes_total: int | None = None
    deadline: AwareDatetime


class ImageVerified(ImageEvent):
    """The image is available. `sha256`: the digest of the bytes that were read, also if the caller gave none."""

    TOPIC = "nebula.image.ImageVerified"
    sha256: str | None = None
    format: Literal["qcow2", "raw"]
    size_bytes: int
    virtual_size_bytes: int


class ImageRejected(ImageEvent):
    TOPIC = "nebula.image.ImageRejected"
    code: str
    detail: str
    field: str


class ImageDeleted(ImageEvent):
    TOPIC = "nebula.image.ImageDeleted"
    operation: str
    fingerprint: str


class ImageDeletionBegun(ImageEvent):
    """From now on no VM may use it. `requested`: the id of the operation that records the finished deletion."""

    TOPIC = "nebula.image.ImageDeletionBegun"
    requested: str
    fingerprint: str


class ImageDeletionGivenUp(ImageEvent):
    """It was in use when its deletion began. It was not deleted, and may be used again."""

    TOPIC = "nebula.image.ImageDeletionGivenUp"
    code: str
    detail: str


ImageEvents = (
    ImageRegistered
    | ImageProgressed
    | ImageVerified
    | ImageRejected
    | ImageDeletionBegun
    | ImageDeletionGivenUp
    | ImageDeleted
)
