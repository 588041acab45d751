"""A base image: what disks are made from.

    RegisterImage ─► verifying ──bytes and checksum are as promised──► available ──DeleteImage──► deleted
                         └──────unreachable, other checksum, no disk image──► rejected ──DeleteImage──►──┘

Verification is an operation of its own: whoever registers an image can wait for it, and is told what is wrong with
which field. Only an available image can be used.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, assert_never

from pydantic import AwareDatetime, Field, StringConstraints

from domain.base import Command, Event, Known, Message, Rejected, Slug, Title, Uuid, same_request
from domain.contract import Firmware, SeedMedium

VERIFY_DEADLINE = timedelta(hours=2)

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Source = Annotated[str, StringConstraints(pattern=r"^(/|https?://)[^\s]+$", max_length=2048)]


class ImagePhase(StrEnum):
    VERIFYING = "verifying"
    AVAILABLE = "available"
    REJECTED = "rejected"
    DELETED = "deleted"


class ImageCommand(Command):
    image: Slug


class RegisterImage(ImageCommand):
    VERB: ClassVar[str] = "register"
    operation: Uuid
    fingerprint: str
    name: Title
    source: Source
    sha256: Sha256
    firmware: Firmware = Firmware.BIOS
    seed: SeedMedium = SeedMedium.HTTP


class AcceptImage(ImageCommand):
    """The bytes are as promised. `registration` is the operation whose source was read."""

    registration: Uuid
    format: Literal["qcow2", "raw"]
    size_bytes: int
    virtual_size_bytes: int


class RejectImage(ImageCommand):
    registration: Uuid
    code: str
    detail: str
    field: str


class DeleteImage(ImageCommand):
    VERB: ClassVar[str] = "delete"
    operation: Uuid
    fingerprint: str
    used_by: int = Field(default=0, description="VMs that were made from it and still exist")


ImageCommands = RegisterImage | AcceptImage | RejectImage | DeleteImage


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
    sha256: str
    firmware: Firmware = Field(default=Firmware.BIOS, description="what its guests are started by")
    seed: SeedMedium = Field(default=SeedMedium.HTTP, description="how its guests' cloud-init gets its data")


class ImageVerified(ImageEvent):
    TOPIC = "nebula.image.ImageVerified"
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


ImageEvents = ImageRegistered | ImageVerified | ImageRejected | ImageDeleted


class Image(Message):
    """An image as its events tell it. `format` and the sizes are known once it is available."""

    id: str
    name: str
    source: str
    sha256: str
    phase: ImagePhase
    registered_by: str = Field(description="the operation that registered it")
    created_at: AwareDatetime
    updated_at: AwareDatetime
    format: Literal["qcow2", "raw"] | None = None
    size_bytes: int | None = None
    virtual_size_bytes: int | None = None
    firmware: Firmware = Firmware.BIOS
    seed: SeedMedium = SeedMedium.HTTP
    failure: str | None = None
    operations: dict[str, Known] = Field(default_factory=dict)


def decide(image: Image | None, command: ImageCommands) -> list[ImageEvents]:
    """What follows from a command on an image."""
    if isinstance(command, RegisterImage):
        return register(image, command)
    if image is None:
        raise Rejected("image_not_found", f"there is no image {command.image}", status=404, field="image")
    match command:
        case AcceptImage():
            if image.phase is not ImagePhase.VERIFYING or image.registered_by != command.registration:
                return []
            return [
                ImageVerified(
                    at=command.at,
                    operation=image.registered_by,
                    format=command.format,
                    size_bytes=command.size_bytes,
                    virtual_size_bytes=command.virtual_size_bytes,
                )
            ]
        case RejectImage():
            if image.phase is not ImagePhase.VERIFYING or image.registered_by != command.registration:
                return []
            return [
                ImageRejected(
                    at=command.at,
                    operation=image.registered_by,
                    code=command.code,
                    detail=command.detail,
                    field=command.field,
                )
            ]
        case DeleteImage():
            if same_request(image.operations.get(command.operation), command.VERB, command.fingerprint):
                return []
            if image.phase is ImagePhase.DELETED:
                raise Rejected("image_deleted", f"image {image.id} was deleted", status=410)
            if command.used_by:
                raise Rejected("image_in_use", f"{command.used_by} VMs still use image {image.id}; delete them first")
            return [ImageDeleted(at=command.at, operation=command.operation, fingerprint=command.fingerprint)]
        case _:
            assert_never(command)


def register(image: Image | None, command: RegisterImage) -> list[ImageEvents]:
    if image is not None:
        if same_request(image.operations.get(command.operation), command.VERB, command.fingerprint):
            return []
        if image.phase not in (ImagePhase.DELETED, ImagePhase.REJECTED):
            raise Rejected("image_exists", f"there is an image {image.id} already; choose another id", field="id")
    return [
        ImageRegistered(
            at=command.at,
            operation=command.operation,
            fingerprint=command.fingerprint,
            deadline=command.at + VERIFY_DEADLINE,
            image=command.image,
            name=command.name,
            source=command.source,
            sha256=command.sha256,
            firmware=command.firmware,
            seed=command.seed,
        )
    ]


def evolve(image: Image | None, event: Event) -> Image | None:
    """The state after an event. A deleted or rejected id may be registered anew."""
    match event:
        case ImageRegistered():
            past = image.operations if image else {}
            known = Known(verb=RegisterImage.VERB, fingerprint=event.fingerprint)
            return Image(
                id=event.image,
                name=event.name,
                source=event.source,
                sha256=event.sha256,
                firmware=event.firmware,
                seed=event.seed,
                phase=ImagePhase.VERIFYING,
                registered_by=event.operation,
                created_at=event.at,
                updated_at=event.at,
                operations={**past, event.operation: known},
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
                "format": event.format,
                "size_bytes": event.size_bytes,
                "virtual_size_bytes": event.virtual_size_bytes,
            }
        case ImageRejected():
            return {"phase": ImagePhase.REJECTED, "failure": event.detail}
        case ImageDeleted():
            known = Known(verb=DeleteImage.VERB, fingerprint=event.fingerprint)
            return {
                "phase": ImagePhase.DELETED,
                "operations": {**image.operations, event.operation: known},
            }
        case _:
            return {}
