"""Base images from the platform: whoever keeps the bytes of an image sends them over the bus, piece by piece.

Nobody is trusted to send the right ones: the digest of all of them is compared afterwards. What has arrived of an image
is gone on with, wherever it came from, since it is the same image.
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
from runtime.bus.replies import Nonsense
from runtime.bus.requests import Patience, Refused, Unanswered
from runtime.images.disk_room import allocate
from runtime.images.download import SILENCE, Check, Part, Tell, write
from runtime.tasks.tasks import end, in_thread
from runtime.text.urls import shown

log = logs.get(__name__)

#: Pieces that are asked for at a time: enough for a fast network, and little for the bus to hold.
AHEAD = 4
#: Seconds for an answer to who keeps an image.
PATIENCE = 10.0


def kept(source: ImageSource) -> str:
    """What comes from here, for people."""
    return f"what the platform keeps of {shown(source.source)}"


class Platform(Protocol):
    async def receive(self, source: ImageSource, part: Part, check: Check, tell: Tell) -> bool:
        """Bring the part to its full length. Whether some of it had arrived before.

        Raises Permanent (image_missing) where the platform does not keep the image; Temporary; what `check` raises; and
        OSError where it cannot be written.
        """
        ...


class Bus:
    """Asks handlers, for one node."""

    def __init__(self, nc: Client, node: str, patience: float = PATIENCE, silence: float = SILENCE) -> None:
        self._nc = nc
        self._node = node
        self._patience = patience
        self._silence = silence

    async def receive(self, source: ImageSource, part: Part, check: Check, tell: Tell) -> bool:
        holder = await self._holder(source)
        check(source.size_bytes)
        part.note.unlink(missing_ok=True)  # it told of a URL's bytes
        begun = size = part.size
        flight: deque[asyncio.Task[bytes]] = deque()
        asked, total = size, source.size_bytes
        tell(size, total)
        try:
            with part.open() as file:
                allocate(file.fileno(), total)
                while size < total:
                    while asked < total and len(flight) < AHEAD:
                        length = min(self._most(), total - asked)
                        flight.append(asyncio.create_task(self._piece(source, holder, asked, length)))
                        asked += length
                    piece = await flight.popleft()
                    await in_thread(write, file.fileno(), piece)
                    size += len(piece)
                    tell(size, total)
        finally:
            await end(flight)
        return begun > 0

    def _most(self) -> int:
        return min(MOST_PIECE, self._nc.max_payload // 2)

    async def _holder(self, source: ImageSource) -> str:
        """Who keeps it. Raises Permanent, Temporary."""
        question = ImageQuestion(node=self._node, sha256=source.sha256).model_dump_json().encode()
        try:
            told = await requests.asked(
                self._nc,
                subjects.image_holder(self._node),
                question,
                Patience(self._patience),
                ImageHolder.model_validate,
            )
        except Nonsense as error:
            raise Temporary(f"the platform answers nonsense on image {source.image}") from error
        except (Unanswered, Refused) as error:
            raise Temporary(f"nobody says who keeps image {source.image}: {error!r}") from error
        if told.holder is None:
            raise Permanent("image_missing", f"the platform does not keep image {source.image} any more")
        if told.size_bytes != source.size_bytes:
            what = f"it has {told.size_bytes} bytes, expected {source.size_bytes}"
            raise mismatch(kept(source), what)
        return told.holder

    async def _piece(self, source: ImageSource, holder: str, offset: int, length: int) -> bytes:
        """Raises Temporary."""
        question = ImagePiece(node=self._node, sha256=source.sha256, offset=offset, length=length)
        subject = subjects.image_piece(self._node, holder)
        try:
            answer = await requests.ask(self._nc, subject, question.model_dump_json().encode(), Patience(self._silence))
        except Unanswered as error:
            raise Temporary(f"who keeps image {source.image} does not answer any more: {error!r}") from error
        if (answer.headers or {}).get(PIECE_OFFSET) != str(offset) or len(answer.data) != length:
            raise Temporary(f"who keeps image {source.image} sends other bytes than were asked for")
        return answer.data
