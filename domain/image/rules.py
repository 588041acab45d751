"""Which events follow from a command on an image, and when a VM may use it."""

from datetime import timedelta
from typing import assert_never

from domain.accepted_requests import AcceptedRequest, same_request
from domain.base import Category, Rejected, being_deleted
from domain.contract import Firmware
from domain.image.commands import (
    AcceptImage,
    DeleteImage,
    ImageCommands,
    NoteProgress,
    RegisterImage,
    RejectImage,
)
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
from domain.image.state import Image
from domain.image.values import DELETE, REGISTER, UNUSABLE, ImagePhase
from domain.references import FinishDeletion, Users

#: How long a verification may take without progress.
VERIFY_DEADLINE = timedelta(hours=2)


def usable_image(image: Image | None, id_: str, project: str) -> Image:
    """The image, if a VM of a project may use it.

    Raises Rejected, for an image of another project as if it did not exist.
    """
    if image is None or image.phase is ImagePhase.DELETED or not image.visible(project):
        raise Rejected("image_not_found", f"there is no image {id_}", Category.INVALID, field="image")
    if image.closing is not None:
        raise being_deleted("image", id_, field="image")
    if image.phase is ImagePhase.REJECTED:
        detail = f"image {image.id} was rejected: {image.failure}; correct that and register it again"
        raise Rejected("image_not_available", detail, field="image")
    if image.phase is not ImagePhase.AVAILABLE:
        detail = f"image {image.id} is {image.phase}; wait until it is available"
        raise Rejected("image_not_available", detail, field="image")
    return image


def refuse_small_disk(image: Image, disk_gib: object) -> None:
    """Raises Rejected if the image does not fit on a disk of `disk_gib` GiB."""
    virtual = image.virtual_size_bytes or 0
    if isinstance(disk_gib, int) and disk_gib * 1024**3 < virtual:
        least = -(-virtual // 1024**3)
        raise Rejected(
            "disk_too_small", f"image {image.id} needs at least {least} GiB", Category.INVALID, field="disk_gib"
        )


def decide(image: Image | None, command: ImageCommands) -> list[ImageEvents]:
    """The events that follow from a command on an image. Raises Rejected."""
    if isinstance(command, RegisterImage):
        return register(image, command)
    if image is None:
        raise Rejected("image_not_found", f"there is no image {id_of(command)}", Category.NOT_FOUND, field="image")
    match command:
        case NoteProgress() | AcceptImage() | RejectImage():
            return verification(image, command)
        case DeleteImage():
            return delete(image, command)
        case FinishDeletion():
            return finish(image, command)
        case _:
            assert_never(command)


def id_of(command: ImageCommands) -> str:
    return command.id if isinstance(command, FinishDeletion) else command.image


def verification(image: Image, command: NoteProgress | AcceptImage | RejectImage) -> list[ImageEvents]:
    """The progress or result of its verification. Those of an earlier registration are ignored."""
    if image.phase is not ImagePhase.VERIFYING or image.registered_by != command.registration:
        return []
    at, operation = command.at, image.registered_by
    match command:
        case NoteProgress(bytes_done=done, bytes_total=total):
            deadline = at + VERIFY_DEADLINE
            return [ImageProgressed(at=at, operation=operation, bytes_done=done, bytes_total=total, deadline=deadline)]
        case AcceptImage():
            return [
                ImageVerified(
                    at=at,
                    operation=operation,
                    sha256=command.sha256,
                    format=command.format,
                    size_bytes=command.size_bytes,
                    virtual_size_bytes=command.virtual_size_bytes,
                )
            ]
        case RejectImage(code=code, detail=detail, field=field):
            return [ImageRejected(at=at, operation=operation, code=code, detail=detail, field=field)]
        case _:
            assert_never(command)


def delete(image: Image, command: DeleteImage) -> list[ImageEvents]:
    closing = image.closing
    begun = AcceptedRequest(verb=DELETE, fingerprint=closing.fingerprint) if closing else None
    known = begun if closing and closing.operation == command.operation else image.operations.get(command.operation)
    if same_request(known, DELETE, command.fingerprint):
        return []
    if closing is not None:
        raise being_deleted("image", image.id)
    if image.phase is ImagePhase.DELETED:
        raise Rejected("image_deleted", f"image {image.id} was deleted", Category.GONE)
    if used := in_use(image, command.users):
        raise used
    return [ImageDeletionBegun(at=command.at, requested=command.operation, fingerprint=command.fingerprint)]


def in_use(image: Image, users: Users) -> Rejected | None:
    """The refusal to delete an image that some resource uses; None if none uses it."""
    if not (used := users.counted()):
        return None
    return Rejected("image_in_use", f"{used} still use image {image.id}; delete them first")


def finish(image: Image, command: FinishDeletion) -> list[ImageEvents]:
    closing = image.closing
    if closing is None:
        return []
    if used := in_use(image, command.users):
        return [ImageDeletionGivenUp(at=command.at, code=used.code, detail=used.detail)]
    return [ImageDeleted(at=command.at, operation=closing.operation, fingerprint=closing.fingerprint)]


def register(image: Image | None, command: RegisterImage) -> list[ImageEvents]:
    if image is not None:
        if same_request(image.operations.get(command.operation), REGISTER, command.fingerprint):
            return []
        if image.closing is not None:
            raise being_deleted("image", image.id)
        if image.phase not in UNUSABLE:
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
            sha512=command.sha512,
            distribution=command.distribution,
            release=command.release,
            architecture=command.architecture,
            description=command.description,
            project=command.project,
            firmware=firmware(command),
            seed=command.seed,
            fetch=command.fetch,
        )
    ]


def firmware(command: RegisterImage) -> Firmware:
    """The firmware that boots an image's guests: for aarch64 only UEFI. Raises Rejected."""
    if command.architecture != "aarch64":
        return command.firmware or Firmware.BIOS
    if command.firmware is Firmware.BIOS:
        detail = "an image for aarch64 cannot boot from BIOS; give uefi, or leave the field out"
        raise Rejected("wrong_firmware", detail, Category.INVALID, field="firmware")
    return Firmware.UEFI
