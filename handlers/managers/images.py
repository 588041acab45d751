"""Images: what was registered is read once before anybody may use it, and gets a verdict.

Right bytes, a disk image by its own header and by QEMU's tools, and no file hidden behind it. What is wrong is said of
the field that is wrong. Nodes check their own copies again.
"""

import asyncio
from functools import partial

from domain import image
from domain.image import AcceptImage, Image, ImageCommands, ImagePhase, NoteProgress, RejectImage
from eventstore.envelope import Ref
from eventstore.store import Conflict, EventStore, Unavailable
from handlers.apply import apply, manager, now
from handlers.managers.image_reading import BadImage, Reader
from handlers.world import World
from runtime import logs, subjects
from runtime.gauge import Gauge
from runtime.tasks import end

log = logs.get(__name__)

#: Seconds until an image is looked at again where a bug, or this host, was in the way.
AGAIN = 5.0


class Verifier:
    """Judges every image that waits for it, each in a task of its own, by the operation that registered it."""

    def __init__(self, store: EventStore, world: World, reader: Reader) -> None:
        self._store = store
        self._world = world
        self._reader = reader
        self._watch = world.watch()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._notes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        try:
            while True:
                changes = await self._watch.next()
                if changes.everything or changes.of("image"):
                    self._look()
        finally:
            await end([*self._running.values(), *self._notes])

    def _look(self) -> None:
        """Begin what waits, and end what nobody waits for any more."""
        waiting = {i.registered_by: i for i in self._world.images() if i.phase is ImagePhase.VERIFYING}
        for operation, found in waiting.items():
            if operation not in self._running:
                task = asyncio.create_task(self._verify(found), name=f"verify {found.id}")
                self._running[operation] = task
                task.add_done_callback(partial(self._done, operation))
        for operation in self._running.keys() - waiting.keys():
            self._running[operation].cancel()
        self._reader.sweep(waiting.keys() | self._running.keys())

    def _done(self, operation: str, ended: asyncio.Task[None]) -> None:
        del self._running[operation]
        if not ended.cancelled() and (error := ended.exception()) is not None:
            log.error("an image could not be judged; trying again", operation=operation, exc_info=error)
            asyncio.get_running_loop().call_later(AGAIN, self._ring)
        else:
            self._ring()

    def _ring(self) -> None:
        self._watch.ring(everything=True)

    async def _verify(self, found: Image) -> None:
        verdict = await self._judge(found)
        context = manager("images", operation=found.registered_by)
        ref = Ref(subjects.SYSTEM, "image", found.id)
        while True:
            try:
                applied = await apply(self._store, ref, image.decide, image.evolve, verdict, context)
                break
            except (Unavailable, Conflict) as error:
                log.warning("image verdict waits for the log", image=found.id, error=str(error))
                await asyncio.sleep(1)
        log.info("image verified", image=found.id, verdict=type(verdict).__name__)
        await self._world.reached(applied.tip.position)  # until then it seems to wait for a verdict

    async def _judge(self, found: Image) -> ImageCommands:
        try:
            facts = await self._reader.facts(found, Gauge(partial(self._told, found)))
        except BadImage as error:
            return RejectImage(
                image=found.id,
                registration=found.registered_by,
                at=now(),
                code=error.code,
                detail=error.detail,
                field=error.field,
            )
        return AcceptImage(
            image=found.id,
            registration=found.registered_by,
            at=now(),
            sha256=facts.sha256,
            format=facts.format,
            size_bytes=facts.size_bytes,
            virtual_size_bytes=facts.virtual_size_bytes,
        )

    def _told(self, found: Image, done: int, total: int | None) -> None:
        task = asyncio.create_task(self._note(found, done, total))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _note(self, found: Image, done: int, total: int | None) -> None:
        """How far it is, for whoever waits. One word less is no harm."""
        progress = NoteProgress(
            image=found.id, registration=found.registered_by, at=now(), bytes_done=done, bytes_total=total
        )
        context = manager("images", operation=found.registered_by)
        try:
            ref = Ref(subjects.SYSTEM, "image", found.id)
            await apply(self._store, ref, image.decide, image.evolve, progress, context)
        except (Unavailable, Conflict) as error:
            log.warning("progress not noted", image=found.id, error=str(error))
