"""Fetches available images that this host does not store: registered by an earlier version or another process, or lost.

They are fetched from their sources again, one at a time, verified by their digests and stored for nodes, if there is
room without the removal of another image. While the source of one is unreachable, nodes get it from there themselves,
and it is tried again.
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
from handlers.world.watch import Changes
from handlers.world.world import World
from runtime import logs

log = logs.get(__name__)

#: Seconds between looks.
PERIOD = 3600.0
#: Codes of verdicts that may be another one at the next try.
TEMPORARY_FAILURES = ("image_unreachable", "disk_full")


class MissingImages:
    """Fetches missing images. `_done`: the digests that this process has stored, or can never get."""

    def __init__(self, world: World, reader: Reader, vault: Vault, kept: ImageStore, period: float = PERIOD) -> None:
        self._world = world
        self._reader = reader
        self._vault = vault
        self._kept = kept
        self._period = period
        self._done: set[str] = set()

    def driver(self) -> Driver:
        """It runs in each handlers process, because each has its own image store."""
        return Driver("kept images", self._look, period=self._period, at_a_time=1, item_seconds=None, everywhere=True)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        await asyncio.to_thread(self._kept.tidy, digests_to_keep(self._world))
        for image in self._world.images():
            if self._is_missing(image):
                driver.submit(image.registered_by, partial(self._fetch, image))
        self._reader.sweep(driver.known())

    def _is_missing(self, image: Image) -> bool:
        wanted = image.phase is ImagePhase.AVAILABLE and image.fetch is Fetch.PLATFORM and image.closing is None
        sha256 = image.sha256
        return wanted and sha256 is not None and sha256 not in self._done and not self._kept.has(sha256)

    async def _fetch(self, image: Image) -> None:
        """Fetch and store an image, if its source still has the same bytes. Raises VaultUnavailable."""
        if not self._is_missing(self._world.image(image.id) or image) or not self._kept.has_room(image.size_bytes or 0):
            return
        try:
            opened = replace(image, source=await full_source(image, self._vault), project=None)
            await self._reader.facts(opened, lambda *_: None)
        except (BadImage, Erased, OSError) as error:
            log.info("image not stored; nodes get it from its source", image=image.id, error=str(error))
            if isinstance(error, OSError) or (isinstance(error, BadImage) and error.code in TEMPORARY_FAILURES):
                return
        self._done.add(image.sha256 or "")
