"""Images: each registered image is read once and verified before anybody may use it.

An image is accepted if its digests match, if its header and QEMU's tools say that it is a disk image, and if it refers
to no other file. A rejection names the field that is wrong. Nodes verify their own copies again.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial

from domain import image
from domain.base import Rejected, replace
from domain.image import AcceptImage, Image, ImageCommands, ImagePhase, NoteProgress, RejectImage
from eventstore.log.envelope import Ref
from eventstore.log.store import Conflict, EventStore, Unavailable
from eventstore.vault.vault import Erased, Vault, VaultUnavailable
from handlers.apply import apply, manager, now
from handlers.images.credentials import full_source
from handlers.images.reading import BadImage, Reader
from handlers.images.store import ImageStore, digests_to_keep
from handlers.managers.driver import Driver
from handlers.world.watch import Changes
from handlers.world.world import World
from runtime import logs, subjects
from runtime.tasks.gauge import Gauge

log = logs.get(__name__)

#: Maximum number of images that are read at a time, in all and of one project. The others wait, the oldest first.
AT_A_TIME, OF_A_PROJECT = 16, 4
#: Number of tries before an error of this host becomes the verdict on an image.
TRIES = 6
#: The suffix of the driver's key for an item that stores progress; before it comes the operation.
PROGRESS = " progress"


class Verifier:
    """Verifies each image that is in the phase `verifying`. Keys are the operations that registered them.

    `_reading`: the images that are being read; `_failures`: number of errors of this host; `_verdicts`: verdicts that
    are not stored yet.
    """

    def __init__(
        self, store: EventStore, world: World, reader: Reader, vault: Vault, kept: ImageStore | None = None
    ) -> None:
        self._kept = kept
        self._vault = vault
        self._store = store
        self._world = world
        self._reader = reader
        self._watch = world.watch(("image",))
        self._reading: dict[str, Image] = {}
        self._failures: Counter[str] = Counter()
        self._verdicts: dict[str, ImageCommands] = {}

    def driver(self) -> Driver:
        """Each image that is read needs two items: one reads it, one stores its progress. Reading has limits itself."""
        return Driver(
            "images",
            self._look,
            watch=self._watch,
            at_a_time=2 * AT_A_TIME,
            item_seconds=None,
            ended=lambda: self._watch.ring(everything=True),
        )

    async def _look(self, changes: Changes, driver: Driver) -> None:
        """Begin to read images whose turn it is, and cancel those that nobody waits for any more."""
        waiting = {i.registered_by: i for i in self._world.images() if i.phase is ImagePhase.VERIFYING}
        for key in driver.known():
            if key.removesuffix(PROGRESS) not in waiting:
                driver.drop(key)
        for operation in (self._failures.keys() | self._verdicts.keys()) - waiting.keys():
            self._failures.pop(operation, None)
            self._verdicts.pop(operation, None)
        begun = driver.begun()
        idle = {key: found for key, found in waiting.items() if key in begun or not driver.knows(key)}
        for operation in turns(idle, begun & waiting.keys()):
            driver.submit(operation, partial(self._verify, waiting[operation], driver))
        self._reader.sweep(waiting.keys() | begun)
        if self._kept is not None:
            verdicts = [verdict for verdict in self._verdicts.values() if isinstance(verdict, AcceptImage)]
            wanted = {verdict.sha256 for verdict in verdicts if verdict.sha256} | digests_to_keep(self._world)
            await asyncio.to_thread(self._kept.tidy, wanted)

    async def _verify(self, found: Image, driver: Driver) -> None:
        """Verify an image, and store the verdict. Raises errors of this host."""
        operation = found.registered_by
        if operation not in self._verdicts:
            if not turns({**self._reading, operation: found}, self._reading.keys()):
                return  # a retry while other images have their turn; it comes again
            self._reading[operation] = found
            try:
                self._verdicts[operation] = await self._verdict(found, driver)
            finally:
                del self._reading[operation]
        verdict = self._verdicts[operation]
        context = manager("images", operation=operation)
        ref = Ref(subjects.SYSTEM, "image", found.id)
        applied = await apply(self._store, ref, image.decide, image.evolve, verdict, context, world=self._world)
        log.info("image verified", image=found.id, verdict=type(verdict).__name__)
        await self._world.reached(applied.tip.position)  # until then it seems to wait for a verdict

    async def _verdict(self, found: Image, driver: Driver) -> ImageCommands:
        """The verdict. Raises VaultUnavailable, and OSError for the first TRIES - 1 errors of this host."""
        try:
            return await self._read(found, driver)
        except BadImage as error:
            return rejection(found, error)
        except VaultUnavailable:
            raise
        except OSError as error:
            self._failures[found.registered_by] += 1
            failures = self._failures[found.registered_by]
            log.warning("image could not be read", image=found.id, failures=failures, error=str(error))
            if failures < TRIES:
                raise
            detail = f"the handlers' host cannot read it: {error.strerror or type(error).__name__}"
            return rejection(found, BadImage("image_unreadable", detail))
        except Exception as error:
            log.exception("unknown error became the verdict on an image", image=found.id)
            detail = f"it cannot be verified ({type(error).__name__}): see the process log of the handlers"
            return rejection(found, BadImage("image_unreadable", detail))

    async def _read(self, found: Image, driver: Driver) -> ImageCommands:
        """Read and verify an image. Raises BadImage, OSError, VaultUnavailable."""
        try:
            opened = replace(found, source=await full_source(found, self._vault))
        except Erased as error:
            raise BadImage("image_missing", "the credentials of its URL were erased; register it again") from error
        facts = await self._reader.facts(opened, Gauge(partial(self._progress, found, driver)))
        return AcceptImage(
            image=found.id,
            registration=found.registered_by,
            at=now(),
            sha256=facts.sha256,
            format=facts.format,
            size_bytes=facts.size_bytes,
            virtual_size_bytes=facts.virtual_size_bytes,
        )

    def _progress(self, found: Image, driver: Driver, done: int, total: int | None) -> None:
        driver.submit(found.registered_by + PROGRESS, partial(self._note, found, done, total))

    async def _note(self, found: Image, done: int, total: int | None) -> None:
        """Store the progress. If that fails, it is only logged."""
        progress = NoteProgress(
            image=found.id, registration=found.registered_by, at=now(), bytes_done=done, bytes_total=total
        )
        context = manager("images", operation=found.registered_by)
        try:
            ref = Ref(subjects.SYSTEM, "image", found.id)
            await apply(self._store, ref, image.decide, image.evolve, progress, context, world=self._world)
        except (Rejected, Unavailable, Conflict) as error:
            log.warning("progress not stored", image=found.id, error=str(error))


def turns(waiting: Mapping[str, Image], running: Collection[str]) -> list[str]:
    """The registrations whose images may be read now, within the limits for all and for one project."""
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
