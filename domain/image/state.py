"""The state of an image, and how each event changes it."""

from typing import Literal, assert_never

from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from domain.accepted_requests import NONE, AcceptedRequest, Operations
from domain.base import LENIENT, Closing, Event, Sealed, replace
from domain.contract import Fetch, Firmware, SeedMedium
from domain.image.events import (
    ImageDeleted,
    ImageDeletionBegun,
    ImageDeletionGivenUp,
    ImageEvents,
    ImageProgressed,
    ImageRegistered,
    ImageRejected,
    ImageVerified,
)
from domain.image.values import DELETE, REGISTER, ImagePhase


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Image:
    """The state of an image. `format`, the sizes and `sha256` are known once it is available."""

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
        """Whether a project may see it."""
        return self.project in (None, project)


def evolve(image: Image | None, event: Event) -> Image | None:
    """The state after an event. The id of a deleted or rejected image may be registered again."""
    if isinstance(event, ImageRegistered):
        return registered(image, event)
    if image is None or not isinstance(event, ImageEvents):
        return image
    return changed(image, event)


def registered(past: Image | None, event: ImageRegistered) -> Image:
    """A new image. It keeps the operations of the earlier image with the same id."""
    known = past.operations if past else NONE
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
        operations=known.insert(event.operation, AcceptedRequest(REGISTER, event.fingerprint)),
    )


def changed(image: Image, event: ImageEvents) -> Image:
    match event:
        case ImageRegistered():
            return registered(image, event)
        case ImageProgressed():
            return replace(image, updated_at=event.at)
        case ImageVerified():
            return replace(
                image,
                updated_at=event.at,
                phase=ImagePhase.AVAILABLE,
                sha256=event.sha256 or image.sha256,
                format=event.format,
                size_bytes=event.size_bytes,
                virtual_size_bytes=event.virtual_size_bytes,
            )
        case ImageRejected():
            return replace(image, updated_at=event.at, phase=ImagePhase.REJECTED, failure=event.detail)
        case ImageDeletionBegun():
            closing = Closing(operation=event.requested, fingerprint=event.fingerprint, since=event.at)
            return replace(image, closing=closing)
        case ImageDeletionGivenUp():
            return replace(image, closing=None)
        case ImageDeleted():
            known = AcceptedRequest(DELETE, event.fingerprint)
            return replace(
                image,
                updated_at=event.at,
                phase=ImagePhase.DELETED,
                closing=None,
                operations=image.operations.insert(event.operation, known),
            )
        case _:
            assert_never(event)
