"""Nodes get the bytes of images from the handlers that keep them.

A node asks all handlers who keeps an image (`nebula.nodes.<node>.images.holder`, by its sha256). Who keeps it says so,
and is then asked for piece after piece, from any offset on. Who does not keeps silent for a moment, so that a holder is
heard first. A node is told of the images alone that its own VMs are made from. It checks the digest of what it got.
"""

import asyncio
import os
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.base import Category, Rejected
from domain.contract import PIECE_OFFSET, CachedImages, ImageHolder, ImagePiece, ImageQuestion
from domain.image import Image
from domain.vm import images_of
from eventstore.log.store import EventStore, Unavailable
from handlers.images.store import ImageStore
from handlers.refusals import refusal
from handlers.world.world import World
from runtime import logs, subjects
from runtime.bus import replies
from runtime.bus.malformed import Malformed
from runtime.bus.replies import Refusal
from runtime.bus.responder import Answer, Responder
from runtime.images.local_file import NotAllowed, opened
from runtime.tasks.tasks import end
from runtime.text.urls import is_url

log = logs.get(__name__)

Q = TypeVar("Q", ImageQuestion, ImagePiece, CachedImages)

#: Seconds until who does not keep an image says so.
HESITATE = 1.0
#: Questions that are answered at a time; who asks more often than that asks again.
MOST_QUESTIONS = 1000


class Pieces:
    """Answers nodes. `sources`: the folders below which a file may be an image's source."""

    def __init__(
        self,
        nc: Client,
        events: EventStore,
        world: World,
        store: ImageStore,
        sources: Sequence[Path],
        malformed: Malformed,
        hesitate: float = HESITATE,
    ) -> None:
        self.holder = uuid.uuid4().hex
        self._nc = nc
        self._responder = Responder(nc, refusal)
        self._events = events
        self._world = world
        self._store = store
        self._sources = sources
        self._malformed = malformed
        self._hesitate = hesitate
        self._answering: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Answer from now on."""
        await self._nc.subscribe(subjects.image_pieces_of_all(self.holder), cb=self._piece)
        await self._nc.subscribe(subjects.IMAGE_HOLDER_OF_ALL, cb=self._asked)

    async def stop(self) -> None:
        """Leave the questions at hand unanswered: nodes ask again."""
        await end(self._answering)

    async def _asked(self, msg: Msg) -> None:
        if not self._responder.accepts(msg) or len(self._answering) >= MOST_QUESTIONS:
            return
        task = asyncio.create_task(self._responder.carry_out(msg, self._answer, partial(self._note, "image-holder")))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def _note(self, source: str, msg: Msg, error: Exception, refused: Refusal) -> None:
        if refused.code == "invalid_request":
            self._malformed.note(source, msg.subject, error)

    async def _answer(self, msg: Msg) -> Answer | None:
        """Whom to ask. Nothing while this process cannot know: others may, and the node asks again."""
        asked = question(msg, ImageQuestion)
        try:
            await self._world.reached(await self._events.last_position())  # its VM may have just been placed
            found = await asyncio.to_thread(self._open, asked.node, asked.sha256)
        except (Unavailable, OSError) as error:
            log.warning("a node gets no answer; it will ask again", subject=msg.subject, error=repr(error))
            return None
        told = ImageHolder()
        if found is not None:
            with found:
                told = ImageHolder(holder=self.holder, size_bytes=os.fstat(found.fileno()).st_size)
            self._store.touch(asked.sha256)
        else:
            await asyncio.sleep(self._hesitate)
        log.info("a node asks for an image", node=asked.node, sha256=asked.sha256, kept=found is not None)
        return Answer(replies.accepted(told))

    async def _piece(self, msg: Msg) -> None:
        """One after the other: whoever asks for many leaves room for others."""
        if self._responder.accepts(msg):
            await self._responder.carry_out(msg, self._bytes, partial(self._note, "image-pieces"))

    async def _bytes(self, msg: Msg) -> Answer:
        asked = question(msg, ImagePiece)
        try:
            piece = await asyncio.to_thread(self._read, asked)
        except OSError as error:
            log.warning("an image that is kept cannot be read", sha256=asked.sha256, error=str(error))
            raise Rejected(
                "image_unreadable", "the image cannot be read here just now", Category.UNAVAILABLE
            ) from error
        if piece is None:
            raise Rejected("image_missing", "the image is not kept here", Category.NOT_FOUND)
        return Answer(piece, {PIECE_OFFSET: str(asked.offset)})

    def _read(self, asked: ImagePiece) -> bytes | None:
        """Raises OSError."""
        found = self._open(asked.node, asked.sha256)
        if found is None:
            return None
        with found:
            return os.pread(found.fileno(), asked.length, asked.offset)

    def _open(self, node: str, sha256: str) -> BinaryIO | None:
        """The bytes of an image that VMs of the node are made from, if we have them. Raises OSError."""
        image = self._of_node(node, sha256)
        if image is None:
            return None
        kept = self._store.open(sha256)
        if kept is not None or is_url(image.source):
            return kept
        try:
            return opened(image.source, self._sources)
        except (NotAllowed, FileNotFoundError, NotADirectoryError):
            return None

    def _of_node(self, node: str, sha256: str) -> Image | None:
        books = self._world.node(node)
        for vm_id in list(books.reservations) if books is not None else ():
            vm = self._world.vm(vm_id)
            for image_id in images_of(vm.state) if vm is not None and vm.state is not None else ():
                image = self._world.image(image_id)
                if image is not None and image.sha256 == sha256:
                    return image
        return None


def question(msg: Msg, kind: type[Q]) -> Q:
    """What a node asks for itself. Raises ValidationError for what makes no sense, Rejected for another's question."""
    asked = kind.model_validate_json(msg.data)
    if asked.node != subjects.node_of(msg.subject):
        raise Rejected("invalid_request", "it claims to be of another node", Category.INVALID, field="node")
    return asked
