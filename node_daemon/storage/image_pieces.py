"""Base images from the platform: the process that stores an image sends its bytes over the bus, piece by piece.

No sender is trusted: the digest of the whole image is checked afterwards. A transfer continues after the bytes that
have arrived before, from whatever source, because an image is identified by its digest.
"""

import asyncio
from collections import deque
from typing import Protocol

from nats.aio.client import Client

from domain.contract import MOST_PIECE, PIECE_OFFSET, ImageHolder, ImagePiece, ImageQuestion, ImageSource
from node_daemon.failure import Permanent, Temporary
from node_daemon.storage.base_image import mismatch
from runtime import logs, subjects
from runtime.bus import requests
from runtime.bus.replies import InvalidReply
from runtime.bus.requests import Patience, Refused, Unanswered
from runtime.images.disk_room import allocate
from runtime.images.download import SILENCE, Check, Part, Tell, write
from runtime.tasks.tasks import end, in_thread
from runtime.text.urls import shown

log = logs.get(__name__)

#: Number of pieces that are requested ahead: enough for a fast network, and little memory of the bus.
AHEAD = 4
#: Seconds to wait for the answer which process stores an image.
PATIENCE = 10.0


def platform_copy(source: ImageSource) -> str:
    """The platform's copy of an image in a message for people."""
    return f"the platform's copy of {shown(source.source)}"


class Platform(Protocol):
    async def receive(self, source: ImageSource, part: Part, check: Check, tell: Tell) -> bool:
        """Fetch the missing bytes of the part. Returns whether some bytes had arrived before.

        Raises Permanent (image_missing) if the platform does not store the image; Temporary; the errors of `check`; and
        OSError if the part cannot be written.
        """
        ...


class Bus:
    """Fetches images from handlers for one node."""

    def __init__(self, nc: Client, node: str, patience: float = PATIENCE, silence: float = SILENCE) -> None:
        self._nc = nc
        self._node = node
        self._patience = patience
        self._silence = silence

    async def receive(self, source: ImageSource, part: Part, check: Check, tell: Tell) -> bool:
        holder = await self._holder(source)
        check(source.size_bytes)
        part.note.unlink(missing_ok=True)  # it describes a download from a URL
        arrived_before = size = part.size
        requested: deque[asyncio.Task[bytes]] = deque()
        offset, total = size, source.size_bytes
        tell(size, total)
        try:
            with part.open() as file:
                allocate(file.fileno(), total)
                while size < total:
                    while offset < total and len(requested) < AHEAD:
                        length = min(self._most(), total - offset)
                        requested.append(asyncio.create_task(self._piece(source, holder, offset, length)))
                        offset += length
                    piece = await requested.popleft()
                    await in_thread(write, file.fileno(), piece)
                    size += len(piece)
                    tell(size, total)
        finally:
            await end(requested)
        return arrived_before > 0

    def _most(self) -> int:
        return min(MOST_PIECE, self._nc.max_payload // 2)

    async def _holder(self, source: ImageSource) -> str:
        """The id of the process that stores the image. Raises Permanent, Temporary."""
        question = ImageQuestion(node=self._node, sha256=source.sha256).model_dump_json().encode()
        try:
            answer = await requests.request(
                self._nc,
                subjects.image_holder(self._node),
                question,
                Patience(self._patience),
                ImageHolder.model_validate,
            )
        except InvalidReply as error:
            raise Temporary(f"handlers gave a malformed answer about image {source.image}") from error
        except (Unanswered, Refused) as error:
            raise Temporary(f"handlers do not say which process stores image {source.image}: {error!r}") from error
        if answer.holder is None:
            raise Permanent("image_missing", f"the platform does not store image {source.image} any more")
        if answer.size_bytes != source.size_bytes:
            what = f"it has {answer.size_bytes} bytes, expected {source.size_bytes}"
            raise mismatch(platform_copy(source), what)
        return answer.holder

    async def _piece(self, source: ImageSource, holder: str, offset: int, length: int) -> bytes:
        """Fetch `length` bytes from `offset` on. Raises Temporary."""
        question = ImagePiece(node=self._node, sha256=source.sha256, offset=offset, length=length)
        subject = subjects.image_piece(self._node, holder)
        try:
            answer = await requests.ask(self._nc, subject, question.model_dump_json().encode(), Patience(self._silence))
        except Unanswered as error:
            what = f"the process that stores image {source.image} does not answer any more"
            raise Temporary(f"{what}: {error!r}") from error
        if (answer.headers or {}).get(PIECE_OFFSET) != str(offset) or len(answer.data) != length:
            raise Temporary(f"the process that stores image {source.image} sent other bytes than were requested")
        return answer.data
