"""Images as a kind: one value of `Kind`."""

from typing import assert_never

from domain.access import IMAGE_MANAGE, IMAGE_READ
from domain.base import Event
from domain.image.commands import DeleteImage, ImageCommands, RegisterImage
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
from domain.image.rules import decide, usable_image
from domain.image.state import Image, evolve
from domain.image.values import DELETE, REGISTER, UNUSABLE, ImagePhase
from domain.kind import CancelReason, Id, Kind, Outcome, Scope, Step
from domain.references import NONE, Reference
from domain.verb import ON_ACCEPTANCE, Effect, Verb


def refers(image: Image) -> frozenset[Reference]:
    if image.phase in UNUSABLE or image.project is None:
        return NONE
    return frozenset([Reference("project", image.project)])


def step(event: Event) -> Step:
    if not isinstance(event, ImageEvents):
        return Step()
    match event:
        case ImageProgressed():
            return Step(done=event.bytes_done, total=event.bytes_total, deadline=event.deadline)
        case ImageVerified():
            return Step(done=event.size_bytes, total=event.size_bytes)
        case ImageRejected():
            return Step(Outcome.FAILED, code=event.code, detail=event.detail, field=event.field)
        case ImageRegistered() | ImageDeletionBegun() | ImageDeletionGivenUp() | ImageDeleted():
            return Step()
        case _:
            assert_never(event)


def cancels(event: Event, _: str, verb: str) -> CancelReason | None:
    """The deletion of an image cancels its registration, if that is pending."""
    return CancelReason.OVERTAKEN if isinstance(event, ImageDeleted) and verb == REGISTER else None


def overtakes(event: Event, before: Image | None) -> str | None:
    return before.registered_by if isinstance(event, ImageDeleted) and before is not None else None


IMAGE = Kind[Image, ImageCommands](
    name="image",
    plural="images",
    title="image",
    scope=Scope.CLOUD,
    id=Id.SLUG,
    readable_by=IMAGE_READ,
    state=Image,
    verbs=(
        Verb(
            name=REGISTER,
            command=RegisterImage,
            summary="Register an image",
            effect=Effect.CREATES,
            permission=IMAGE_MANAGE,
            accepted_by=(ImageRegistered,),
            fulfilled_by=(ImageVerified,),
        ),
        Verb(
            name=DELETE,
            command=DeleteImage,
            summary="Delete an image",
            effect=Effect.DELETES,
            permission=IMAGE_MANAGE,
            accepted_by=(ImageDeleted,),
            fulfilled_by=ON_ACCEPTANCE,
            two_steps=True,
        ),
    ),
    events=(ImageProgressed, ImageVerified, ImageRejected, ImageDeletionBegun, ImageDeletionGivenUp),
    decide=decide,
    evolve=evolve,
    deleted=lambda image: image.phase is ImagePhase.DELETED,
    refers=refers,
    owner=lambda image: image.project,
    usable=usable_image,
    step=step,
    cancels=cancels,
    overtakes=overtakes,
)
