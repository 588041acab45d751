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
        default=None, description="where `source` was cut because it holds credentials: all of it"
    )
    sha256: str | None = None
    sha512: str | None = None
    distribution: str | None = None
    release: str | None = None
    architecture: str = "x86_64"
    description: str | None = None
    project: str | None = None
    firmware: Firmware = Field(default=Firmware.BIOS, description="what its guests are started by")
    seed: SeedMedium = Field(default=SeedMedium.HTTP, description="how its guests' cloud-init gets its data")
    fetch: Fetch = Field(default=Fetch.PLATFORM, description="where nodes get it")


class ImageProgressed(ImageEvent):
    """It is being read: told seldom, since each word stays for ever. Its deadline moves with it."""

    TOPIC = "nebula.image.ImageProgressed"
    bytes_done: int
    bytes_total: int | None = None
    deadline: AwareDatetime


class ImageVerified(ImageEvent):
    """`sha256` is that of the bytes that were read: from here on it counts, also where none was given."""

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
    """No VM may use it from here on. `requested`: the operation that the deletion becomes, if it is finished."""

    TOPIC = "nebula.image.ImageDeletionBegun"
    requested: str
    fingerprint: str


class ImageDeletionGivenUp(ImageEvent):
    """It was in use where its deletion began: it may be used again, and nothing was deleted."""

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
