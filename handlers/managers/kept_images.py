"""Images that are available and not kept here: those that were registered before images were kept, and what was lost.

Each is brought from its source once more, one at a time, compared with its digest and kept for nodes, where that makes
nothing else go. While its source cannot be had, nodes ask that source themselves, and it is tried again.
"""

import asyncio
from functools import partial

from domain.base import replace
from domain.contract import Fetch
from domain.image import Image, ImagePhase
from eventstore.vault.vault import Erased, Vault
from handlers.images.credentials import full_source
from handlers.images.reading import BadImage, Reader
from handlers.images.store import ImageStore, digests_to_keep
from handlers.managers.driver import Driver
from handlers.world.world import Changes, World
from runtime import logs

log = logs.get(__name__)

#: Seconds between looks.
PERIOD = 3600.0
#: What may be another time: codes of verdicts.
PASSES = ("image_unreachable", "disk_full")


class Keeper:
    """`_over`: the digests of which this process knows that they are not to be had or kept."""

    def __init__(self, world: World, reader: Reader, vault: Vault, kept: ImageStore, period: float = PERIOD) -> None:
        self._world = world
        self._reader = reader
        self._vault = vault
        self._kept = kept
        self._period = period
        self._over: set[str] = set()

    def driver(self) -> Driver:
        """Each handlers process keeps images of its own."""
        return Driver("kept images", self._look, period=self._period, at_a_time=1, item_seconds=None, everywhere=True)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        await asyncio.to_thread(self._kept.tidy, digests_to_keep(self._world))
        for image in self._world.images():
            if self._lacks(image):
                driver.each(image.registered_by, partial(self._bring, image))
        self._reader.sweep(driver.known())

    def _lacks(self, image: Image) -> bool:
        wanted = image.phase is ImagePhase.AVAILABLE and image.fetch is Fetch.PLATFORM and image.closing is None
        sha256 = image.sha256
        return wanted and sha256 is not None and sha256 not in self._over and not self._kept.has(sha256)

    async def _bring(self, image: Image) -> None:
        """Keep what is behind the image's source, if that is still the image. Raises VaultUnavailable."""
        if not self._lacks(self._world.image(image.id) or image) or not self._kept.has_room(image.size_bytes or 0):
            return
        try:
            opened = replace(image, source=await full_source(image, self._vault), project=None)
            await self._reader.facts(opened, lambda *_: None)
        except (BadImage, Erased, OSError) as error:
            log.info("image not kept: nodes get it from its source", image=image.id, error=str(error))
            if isinstance(error, OSError) or (isinstance(error, BadImage) and error.code in PASSES):
                return
        self._over.add(image.sha256 or "")
