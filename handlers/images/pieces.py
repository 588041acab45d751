"""Nodes get the bytes of images from the handlers processes that store them.

A node asks all handlers processes who stores an image (`nebula.nodes.<node>.images.holder`, by its SHA-256). The holder
replies, and the node then requests one piece after the other from it, at any offset. A process that does not store the
image waits before it replies, so that the holder's reply comes first. A node gets only images of its own VMs. It checks
the digest of the bytes.
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
from runtime.images.local_file import NotAllowed, open_file
from runtime.tasks.tasks import end
from runtime.text.urls import is_url

log = logs.get(__name__)

Q = TypeVar("Q", ImageQuestion, ImagePiece, CachedImages)

#: Seconds after which a process that does not store the image replies.
HESITATE = 1.0
#: Maximum number of requests that are answered at a time; further ones are ignored, and nodes repeat them.
MOST_QUESTIONS = 1000


class Pieces:
    """Answers nodes. `sources`: the folders in which a file may be the source of an image."""

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
        """Answer requests from now on."""
        await self._nc.subscribe(subjects.image_pieces_of_all(self.holder), cb=self._on_piece)
        await self._nc.subscribe(subjects.IMAGE_HOLDER_OF_ALL, cb=self._on_holder)

    async def stop(self) -> None:
        """Cancel the requests that are being answered: nodes repeat them."""
        await end(self._answering)

    async def _on_holder(self, msg: Msg) -> None:
        if not self._responder.accepts(msg) or len(self._answering) >= MOST_QUESTIONS:
            return
        task = asyncio.create_task(self._responder.carry_out(msg, self._answer, partial(self._note, "image-holder")))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def _note(self, source: str, msg: Msg, error: Exception, refused: Refusal) -> None:
        if refused.code == "invalid_request":
            self._malformed.note(source, msg.subject, error)

    async def _answer(self, msg: Msg) -> Answer | None:
        """The holder of an image. None while this process cannot find out: others may, and the node repeats it."""
        request = parse_request(msg, ImageQuestion)
        try:
            await self._world.reached(await self._events.last_position())  # its VM may have just been placed
            file = await asyncio.to_thread(self._open, request.node, request.sha256)
        except (Unavailable, OSError) as error:
            log.warning("request of a node not answered; it will ask again", subject=msg.subject, error=repr(error))
            return None
        holder = ImageHolder()
        if file is not None:
            with file:
                holder = ImageHolder(holder=self.holder, size_bytes=os.fstat(file.fileno()).st_size)
            self._store.touch(request.sha256)
        else:
            await asyncio.sleep(self._hesitate)
        log.info("node asks for an image", node=request.node, sha256=request.sha256, stored=file is not None)
        return Answer(replies.accepted(holder))

    async def _on_piece(self, msg: Msg) -> None:
        """Pieces are answered one after the other, so one node cannot crowd out the others."""
        if self._responder.accepts(msg):
            await self._responder.carry_out(msg, self._bytes, partial(self._note, "image-pieces"))

    async def _bytes(self, msg: Msg) -> Answer:
        request = parse_request(msg, ImagePiece)
        try:
            piece = await asyncio.to_thread(self._read, request)
        except OSError as error:
            log.warning("stored image cannot be read", sha256=request.sha256, error=str(error))
            raise Rejected(
                "image_unreadable", "the image cannot be read here at present; try again", Category.UNAVAILABLE
            ) from error
        if piece is None:
            raise Rejected(
                "image_missing", "the image is not stored here; ask for its holder again", Category.NOT_FOUND
            )
        return Answer(piece, {PIECE_OFFSET: str(request.offset)})

    def _read(self, request: ImagePiece) -> bytes | None:
        """The bytes of a piece; None if the image is not stored here. Raises OSError."""
        file = self._open(request.node, request.sha256)
        if file is None:
            return None
        with file:
            return os.pread(file.fileno(), request.length, request.offset)

    def _open(self, node: str, sha256: str) -> BinaryIO | None:
        """The bytes of an image of the node's VMs; None if they are not here. Raises OSError."""
        image = self._of_node(node, sha256)
        if image is None:
            return None
        stored = self._store.open(sha256)
        if stored is not None or is_url(image.source):
            return stored
        try:
            return open_file(image.source, self._sources)
        except (NotAllowed, FileNotFoundError, NotADirectoryError):
            return None

    def _of_node(self, node: str, sha256: str) -> Image | None:
        """The image with this digest, if a VM on the node uses it."""
        found = self._world.node(node)
        for vm_id in list(found.reservations) if found is not None else ():
            vm = self._world.vm(vm_id)
            for image_id in images_of(vm.state) if vm is not None and vm.state is not None else ():
                image = self._world.image(image_id)
                if image is not None and image.sha256 == sha256:
                    return image
        return None


def parse_request(msg: Msg, kind: type[Q]) -> Q:
    """The request of a node. Raises ValidationError if it is malformed, Rejected if it names another node."""
    request = kind.model_validate_json(msg.data)
    if request.node != subjects.node_of(msg.subject):
        raise Rejected("invalid_request", "the request names another node", Category.INVALID, field="node")
    return request
