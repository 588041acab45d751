"""An image as its events tell it, and what each event changes."""

from typing import Literal

from pydantic import AwareDatetime, Field

from domain.base import Closing, Event, Message, Sealed
from domain.contract import Fetch, Firmware, SeedMedium
from domain.image.commands import DeleteImage, RegisterImage
from domain.image.events import (
    ImageDeleted,
    ImageDeletionBegun,
    ImageDeletionGivenUp,
    ImageEvent,
    ImageRegistered,
    ImageRejected,
    ImageVerified,
)
from domain.image.values import ImagePhase
from domain.known import NONE, Known, Operations


class Image(Message):
    """An image as its events tell it. `format`, the sizes and in any case `sha256` are known once it is available."""

    id: str
    name: str
    source: str
    sealed_source: Sealed | None = None
    sha256: str | None = None
    sha512: str | None = None
    distribution: str | None = None
    release: str | None = None
    architecture: str = "x86_64"
    description: str | None = None
    project: str | None = None
    phase: ImagePhase
    registered_by: str = Field(description="the operation that registered it")
    created_at: AwareDatetime
    updated_at: AwareDatetime
    format: Literal["qcow2", "raw"] | None = None
    size_bytes: int | None = None
    virtual_size_bytes: int | None = None
    firmware: Firmware = Firmware.BIOS
    seed: SeedMedium = SeedMedium.HTTP
    fetch: Fetch = Fetch.PLATFORM
    failure: str | None = None
    closing: Closing | None = None
    operations: Operations = NONE

    def visible(self, project: str) -> bool:
        """Whether a project may know of it."""
        return self.project in (None, project)


def evolve(image: Image | None, event: Event) -> Image | None:
    """The state after an event. A deleted or rejected id may be registered anew."""
    match event:
        case ImageRegistered():
            past = image.operations if image else NONE
            return Image(
                id=event.image,
                name=event.name,
                source=event.source,
                sealed_source=event.sealed_source,
                sha256=event.sha256,
                sha512=event.sha512,
                distribution=event.distribution,
                release=event.release,
                architecture=event.architecture,
                description=event.description,
                project=event.project,
                firmware=event.firmware,
                seed=event.seed,
                fetch=event.fetch,
                phase=ImagePhase.VERIFYING,
                registered_by=event.operation,
                created_at=event.at,
                updated_at=event.at,
                operations=past.insert(event.operation, Known(RegisterImage.VERB, event.fingerprint)),
            )
        case ImageEvent() if image is not None:
            return image.model_copy(update={"updated_at": event.at, **changes(image, event)})
        case _:
            return image


def changes(image: Image, event: ImageEvent) -> dict[str, object]:
    match event:
        case ImageVerified():
            return {
                "phase": ImagePhase.AVAILABLE,
                "sha256": event.sha256 or image.sha256,
                "format": event.format,
                "size_bytes": event.size_bytes,
                "virtual_size_bytes": event.virtual_size_bytes,
            }
        case ImageRejected():
            return {"phase": ImagePhase.REJECTED, "failure": event.detail}
        case ImageDeletionBegun():
            closing = Closing(operation=event.requested, fingerprint=event.fingerprint, since=event.at)
            return {"closing": closing, "updated_at": image.updated_at}
        case ImageDeletionGivenUp():
            return {"closing": None, "updated_at": image.updated_at}
        case ImageDeleted():
            return {
                "phase": ImagePhase.DELETED,
                "closing": None,
                "operations": image.operations.insert(event.operation, Known(DeleteImage.VERB, event.fingerprint)),
            }
        case _:
            return {}
