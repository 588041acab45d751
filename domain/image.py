"""A base image: what disks are made from.

    RegisterImage ─► verifying ──bytes and checksum are as promised──► available ──DeleteImage──► deleted
                         └──────unreachable, other checksum, no disk image──► rejected ──DeleteImage──►──┘

Verification is an operation of its own: whoever registers an image can wait for it, sees how far it is, and is told
what is wrong with which field. Only an available image can be used; one that belongs to a project, by that one alone.

A deletion has two steps, as that of a project (`project.py`): while it is closing nothing new may use the image.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, assert_never

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from domain.base import (
    LINES_PATTERN,
    Closing,
    Command,
    Event,
    Message,
    Rejected,
    Sealed,
    Slug,
    Title,
    Uuid,
    being_deleted,
    one_spelling,
)
from domain.contract import Architecture, Firmware, SeedMedium, Sha256, Sha512
from domain.image_source import Source
from domain.known import NONE, Known, Operations, same_request

VERIFY_DEADLINE = timedelta(hours=2)

Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]
"""A distribution or a release, such as debian or 24.04."""


def lines(text: str) -> str:
    """A text of several lines, without spaces and line ends around it. Raises ValueError."""
    if not all(char.isprintable() or char == "\n" for char in text):
        raise ValueError("has to be printable characters and line ends")
    return text.strip(" \n")


Description = Annotated[
    str,
    StringConstraints(max_length=2000),
    AfterValidator(lines),
    AfterValidator(one_spelling),
    Field(json_schema_extra={"pattern": LINES_PATTERN}),
]


class ImagePhase(StrEnum):
    VERIFYING = "verifying"
    AVAILABLE = "available"
    REJECTED = "rejected"
    DELETED = "deleted"


#: Images that nobody can use any more.
OVER = (ImagePhase.DELETED, ImagePhase.REJECTED)


class ImageCommand(Command):
    image: Slug


class RegisterImage(ImageCommand):
    """Digests that are given have to match. `project`: the one that alone may use it; without, all may."""

    VERB: ClassVar[str] = "register"
    operation: Uuid
    fingerprint: str
    name: Title
    source: Source
    sealed_source: Sealed | None = Field(default=None, description="the whole source, where `source` is only its part")
    sha256: Sha256 | None = None
    sha512: Sha512 | None = None
    distribution: Word | None = None
    release: Word | None = None
    architecture: Architecture = "x86_64"
    description: Description | None = None
    project: Slug | None = None
    firmware: Firmware = Firmware.BIOS
    seed: SeedMedium = SeedMedium.HTTP


class NoteProgress(ImageCommand):
    """So many bytes have been read, of so many, where that is known."""

    registration: Uuid
    bytes_done: int = Field(ge=0)
    bytes_total: int | None = None


class AcceptImage(ImageCommand):
    """The bytes are as promised. `registration` is the operation whose source was read; `sha256` what they are."""

    registration: Uuid
    sha256: Sha256 | None = None
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


class FinishImageDeletion(ImageCommand):
    """Who used the image at the position where its deletion began."""

    used_by: int = 0


ImageCommands = RegisterImage | NoteProgress | AcceptImage | RejectImage | DeleteImage | FinishImageDeletion


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
    failure: str | None = None
    closing: Closing | None = None
    operations: Operations = NONE

    def visible(self, project: str) -> bool:
        """Whether a project may know of it."""
        return self.project in (None, project)


def usable_image(image: Image | None, id_: str, project: str) -> Image:
    """The image, when a VM of a project may use it. One of another project is not there. Raises Rejected."""
    if image is None or image.phase is ImagePhase.DELETED or not image.visible(project):
        raise Rejected("image_not_found", f"there is no image {id_}", status=422, field="image")
    if image.closing is not None:
        raise being_deleted("image", id_, field="image")
    if image.phase is not ImagePhase.AVAILABLE:
        raise Rejected("image_not_available", f"image {image.id} is {image.phase}", field="image")
    return image


def refuse_small_disk(image: Image, disk_gib: object) -> None:
    """An image does not fit on a disk that is smaller than itself. Raises Rejected."""
    virtual = image.virtual_size_bytes or 0
    if isinstance(disk_gib, int) and disk_gib * 1024**3 < virtual:
        least = -(-virtual // 1024**3)
        raise Rejected("disk_too_small", f"image {image.id} needs at least {least} GiB", status=422, field="disk_gib")


def decide(image: Image | None, command: ImageCommands) -> list[ImageEvents]:
    """What follows from a command on an image."""
    if isinstance(command, RegisterImage):
        return register(image, command)
    if image is None:
        raise Rejected("image_not_found", f"there is no image {command.image}", status=404, field="image")
    match command:
        case NoteProgress():
            if image.phase is not ImagePhase.VERIFYING or image.registered_by != command.registration:
                return []
            return [
                ImageProgressed(
                    at=command.at,
                    operation=image.registered_by,
                    bytes_done=command.bytes_done,
                    bytes_total=command.bytes_total,
                    deadline=command.at + VERIFY_DEADLINE,
                )
            ]
        case AcceptImage():
            if image.phase is not ImagePhase.VERIFYING or image.registered_by != command.registration:
                return []
            return [
                ImageVerified(
                    at=command.at,
                    operation=image.registered_by,
                    sha256=command.sha256,
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
            return delete(image, command)
        case FinishImageDeletion():
            return finish(image, command)
        case _:
            assert_never(command)


def delete(image: Image, command: DeleteImage) -> list[ImageEvents]:
    closing = image.closing
    begun = Known(verb=command.VERB, fingerprint=closing.fingerprint) if closing else None
    known = begun if closing and closing.operation == command.operation else image.operations.get(command.operation)
    if same_request(known, command.VERB, command.fingerprint):
        return []
    if closing is not None:
        raise being_deleted("image", image.id)
    if image.phase is ImagePhase.DELETED:
        raise Rejected("image_deleted", f"image {image.id} was deleted", status=410)
    if command.used_by:
        raise in_use(image, command.used_by)
    return [ImageDeletionBegun(at=command.at, requested=command.operation, fingerprint=command.fingerprint)]


def in_use(image: Image, used_by: int) -> Rejected:
    return Rejected("image_in_use", f"{used_by} VMs still use image {image.id}; delete them first")


def finish(image: Image, command: FinishImageDeletion) -> list[ImageEvents]:
    closing = image.closing
    if closing is None:
        return []
    if command.used_by:
        used = in_use(image, command.used_by)
        return [ImageDeletionGivenUp(at=command.at, code=used.code, detail=used.detail)]
    return [ImageDeleted(at=command.at, operation=closing.operation, fingerprint=closing.fingerprint)]


def register(image: Image | None, command: RegisterImage) -> list[ImageEvents]:
    if image is not None:
        if same_request(image.operations.get(command.operation), command.VERB, command.fingerprint):
            return []
        if image.closing is not None:
            raise being_deleted("image", image.id)
        if image.phase not in OVER:
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
            sealed_source=command.sealed_source,
            sha256=command.sha256,
            firmware=command.firmware,
            seed=command.seed,
            sha512=command.sha512,
            distribution=command.distribution,
            release=command.release,
            architecture=command.architecture,
            description=command.description,
            project=command.project,
        )
    ]


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
                firmware=event.firmware,
                seed=event.seed,
                sha512=event.sha512,
                distribution=event.distribution,
                release=event.release,
                architecture=event.architecture,
                description=event.description,
                project=event.project,
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
