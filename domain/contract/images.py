"""What a node asks handlers about images, and what they answer."""

from typing import Annotated

from pydantic import Field

from domain.base import Message, Slug
from domain.contract.values import BootId, Sha256, Size

MOST_DIGESTS = 1000
#: Bytes of an image in one message: well below what a message may have.
MOST_PIECE = 256 * 1024
#: Header of such a message: where its bytes begin. A refusal has none.
PIECE_OFFSET = "Nebula-Offset"


class CachedImages(Message):
    """A node's question: the sha256 of every image it keeps."""

    node: Slug
    digests: Annotated[tuple[Sha256, ...], Field(max_length=MOST_DIGESTS)]


class UnwantedImages(Message):
    """The answer: those that are in the catalogue no more."""

    digests: Annotated[tuple[Sha256, ...], Field(max_length=MOST_DIGESTS)]


class ImageQuestion(Message):
    """A node asks who keeps the bytes of an image that one of its VMs is made from."""

    node: Slug
    sha256: Sha256


class ImageHolder(Message):
    """The answer: whom to ask for the bytes. `holder` is None where who answers does not keep them."""

    holder: BootId | None = None
    size_bytes: Size = 0


class ImagePiece(Message):
    """A node asks the holder for `length` bytes of an image. They are the answer, as they are."""

    node: Slug
    sha256: Sha256
    offset: Size
    length: Annotated[int, Field(ge=1, le=MOST_PIECE, strict=True)]
