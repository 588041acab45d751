"""Images: what was registered is read once before anybody may use it, and gets a verdict.

Right bytes, a disk image by its own header and by QEMU's tools, and no file hidden behind it. What is wrong is said of
the field that is wrong. Nodes check their own copies again.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial

from domain import image
from domain.image import AcceptImage, Image, ImageCommands, ImagePhase, NoteProgress, RejectImage
from eventstore.envelope import Ref
from eventstore.store import Conflict, EventStore, Unavailable
from eventstore.vault import Erased, Vault, VaultUnavailable
from handlers.apply import apply, manager, now
from handlers.image_secrets import whole
from handlers.managers.image_reading import BadImage, Reader
from handlers.world import World
from runtime import logs, subjects
from runtime.gauge import Gauge
from runtime.tasks import end

log = logs.get(__name__)

#: Images that are read at a time, in all and of one project. The others wait for their turn, the oldest first.
AT_A_TIME, OF_A_PROJECT = 16, 4
#: Seconds until an image is looked at again where this host was in the way: from the first to the last, doubled.
FIRST_RETRY, LAST_RETRY = 1.0, 60.0
#: Times that an image is looked at before an error of this host becomes the verdict on it.
TRIES = 5


class Verifier:
    """Judges every image that waits for it, each in a task of its own, by the operation that registered it."""

    def __init__(self, store: EventStore, world: World, reader: Reader, vault: Vault) -> None:
        self._vault = vault
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
        """Begin what waits and has its turn, and end what nobody waits for any more."""
        waiting = {i.registered_by: i for i in self._world.images() if i.phase is ImagePhase.VERIFYING}
        for operation in self._running.keys() - waiting.keys():
            self._running[operation].cancel()
        for operation in turns(waiting, self._running.keys()):
            found = waiting[operation]
            task = asyncio.create_task(self._verify(found), name=f"verify {found.id}")
            self._running[operation] = task
            task.add_done_callback(partial(self._done, operation))
        self._reader.sweep(waiting.keys() | self._running.keys())

    def _done(self, operation: str, ended: asyncio.Task[None]) -> None:
        del self._running[operation]
        if not ended.cancelled() and (error := ended.exception()) is not None:
            log.error("an image could not be judged", operation=operation, exc_info=error)
            asyncio.get_running_loop().call_later(LAST_RETRY, self._ring)
        else:
            self._ring()

    def _ring(self) -> None:
        self._watch.ring(everything=True)

    async def _verify(self, found: Image) -> None:
        verdict = await self._judge_in_the_end(found)
        context = manager("images", operation=found.registered_by)
        ref = Ref(subjects.SYSTEM, "image", found.id)
        while True:
            try:
                applied = await apply(self._store, ref, image.decide, image.evolve, verdict, context, world=self._world)
                break
            except (Unavailable, Conflict) as error:
                log.warning("image verdict waits for the log", image=found.id, error=str(error))
                await asyncio.sleep(1)
        log.info("image verified", image=found.id, verdict=type(verdict).__name__)
        await self._world.reached(applied.tip.position)  # until then it seems to wait for a verdict

    async def _judge_in_the_end(self, found: Image) -> ImageCommands:
        """A verdict, whatever happens. What waits here is this image alone."""
        failures = 0
        while True:
            try:
                return await self._judge(found)
            except BadImage as error:
                return rejection(found, error)
            except OSError as error:
                failures += 1
                log.warning("an image could not be read", image=found.id, failures=failures, error=str(error))
                if failures >= TRIES:
                    detail = f"this host cannot read it: {error.strerror or type(error).__name__}"
                    return rejection(found, BadImage("image_unreadable", detail))
            except VaultUnavailable as error:
                failures += 1
                log.warning("an image waits for the vault", image=found.id, error=str(error))
            except Exception as error:
                log.exception("an unknown error became the verdict on an image", image=found.id)
                detail = f"it cannot be judged ({type(error).__name__}): the log of the handlers says more"
                return rejection(found, BadImage("image_unreadable", detail))
            await asyncio.sleep(min(FIRST_RETRY * 2 ** (failures - 1), LAST_RETRY))

    async def _judge(self, found: Image) -> ImageCommands:
        """Raises BadImage, OSError, VaultUnavailable."""
        try:
            opened = found.model_copy(update={"source": await whole(found, self._vault)})
        except Erased as error:
            raise BadImage("image_missing", "the credentials of its URL were destroyed") from error
        facts = await self._reader.facts(opened, Gauge(partial(self._told, found)))
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
            await apply(self._store, ref, image.decide, image.evolve, progress, context, world=self._world)
        except (Unavailable, Conflict) as error:
            log.warning("progress not noted", image=found.id, error=str(error))


def turns(waiting: Mapping[str, Image], running: Collection[str]) -> list[str]:
    """Whose turn it is now, by registration: no more at a time than may be, in all and of one project."""
    busy = Counter(waiting[operation].project for operation in running if operation in waiting)
    begun: list[str] = []
    for operation, found in sorted(waiting.items(), key=lambda one: (one[1].created_at, one[0])):
        if operation in running or (found.project is not None and busy[found.project] >= OF_A_PROJECT):
            continue
        if len(running) + len(begun) >= AT_A_TIME:
            break
        busy[found.project] += 1
        begun.append(operation)
    return begun


def rejection(found: Image, error: BadImage) -> RejectImage:
    return RejectImage(
        image=found.id,
        registration=found.registered_by,
        at=now(),
        code=error.code,
        detail=error.detail,
        field=error.field,
    )
