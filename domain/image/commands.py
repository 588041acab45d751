"""What can be asked of an image, and what the platform finds out about it."""

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


class Asked(ImageCommand):
    """What somebody asks for: an operation."""

    operation: Uuid
    fingerprint: str


class RegisterImage(Asked):
    """Digests that are given have to match. `project`: the one that alone may use it; without, all may."""

    name: Title
    source: Source
    sealed_source: Sealed | None = Field(default=None, description="the whole source, where `source` is only its part")
    sha256: GivenSha256 | None = None
    sha512: GivenSha512 | None = None
    distribution: Word | None = None
    release: Word | None = None
    architecture: GivenArchitecture = "x86_64"
    description: Description | None = None
    project: Annotated[Slug | None, Names("project")] = None
    firmware: Firmware | None = Field(default=None, description="what its architecture is started by as a rule")
    seed: SeedMedium = SeedMedium.HTTP
    fetch: Fetch = Fetch.PLATFORM


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


class DeleteImage(Asked):
    users: Annotated[Users, LOOKED_UP] = Users()


ImageCommands = RegisterImage | NoteProgress | AcceptImage | RejectImage | DeleteImage | FinishDeletion
