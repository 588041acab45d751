"""The requests of nodes to handlers about images, and their replies."""

from typing import Annotated

from pydantic import Field

from domain.base import Message, Slug
from domain.contract.values import BootId, Sha256, Size

MOST_DIGESTS = 1000
#: Maximum number of bytes of an image in one message: well below NATS' limit of a message.
MOST_PIECE = 256 * 1024
#: Header of such a message: the offset of its first byte in the image. A refusal does not have it.
PIECE_OFFSET = "Nebula-Offset"


class CachedImages(Message):
    """A node's request: the SHA-256 of each image in its cache."""

    node: Slug
    digests: Annotated[tuple[Sha256, ...], Field(max_length=MOST_DIGESTS)]


class UnwantedImages(Message):
    """The reply: the images that the platform does not have (any more)."""

    digests: Annotated[tuple[Sha256, ...], Field(max_length=MOST_DIGESTS)]


class ImageQuestion(Message):
    """A node asks which handlers process stores the bytes of an image of one of its VMs."""

    node: Slug
    sha256: Sha256


class ImageHolder(Message):
    """The reply: the process that stores the bytes. `holder` is None if the process that replies does not."""

    holder: BootId | None = None
    size_bytes: Size = 0


class ImagePiece(Message):
    """A node asks the holder for `length` bytes of an image. The body of the reply is these bytes."""

    node: Slug
    sha256: Sha256
    offset: Size
    length: Annotated[int, Field(ge=1, le=MOST_PIECE, strict=True)]
