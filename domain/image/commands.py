"""The commands of callers on an image, and the platform's own ones, about the result of its verification."""

from typing import Annotated, Literal

from pydantic import Field

from domain.base import Command, Sealed, Slug, Title, Uuid
from domain.contract import Fetch, Firmware, SeedMedium, Sha256
from domain.image.values import Description, Word
from domain.image_source import Source
from domain.references import LOOKED_UP, FinishDeletion, Names, Users
from domain.spellings import GivenArchitecture, GivenSha256, GivenSha512


class ImageCommand(Command):
    image: Slug


class ImageOperationCommand(ImageCommand):
    """A command of a caller. When it is accepted, it becomes an operation."""

    operation: Uuid
    fingerprint: str


class RegisterImage(ImageOperationCommand):
    """The digests have to match, if given. `project`: the only project that may use it; if None, all projects may."""

    name: Title
    source: Source
    sealed_source: Sealed | None = Field(default=None, description="the whole source, if `source` is only a part")
    sha256: GivenSha256 | None = None
    sha512: GivenSha512 | None = None
    distribution: Word | None = None
    release: Word | None = None
    architecture: GivenArchitecture = "x86_64"
    description: Description | None = None
    project: Annotated[Slug | None, Names("project")] = None
    firmware: Firmware | None = Field(default=None, description="None: the usual one of its architecture")
    seed: SeedMedium = SeedMedium.HTTP
    fetch: Fetch = Fetch.PLATFORM


class NoteProgress(ImageCommand):
    """The platform has read `bytes_done` of `bytes_total` bytes; the total is None if it is unknown."""

    registration: Uuid
    bytes_done: int = Field(ge=0)
    bytes_total: int | None = None


class AcceptImage(ImageCommand):
    """The image is valid. `registration`: the operation whose source was read; `sha256`: the digest of its bytes."""

    registration: Uuid
    sha256: Sha256 | None = None
    format: Literal["qcow2", "raw"]
    size_bytes: int
    virtual_size_bytes: int


class RejectImage(ImageCommand):
    """The image is not valid. `field`: the field of the registration that is wrong."""

    registration: Uuid
    code: str
    detail: str
    field: str


class DeleteImage(ImageOperationCommand):
    users: Annotated[Users, LOOKED_UP] = Users()


ImageCommands = RegisterImage | NoteProgress | AcceptImage | RejectImage | DeleteImage | FinishDeletion
