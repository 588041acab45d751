"""Cleans the image cache regularly: asks handlers which images are no longer in the catalogue, and removes them."""

import asyncio
from collections.abc import Awaitable, Callable

from nats.aio.client import Client

from domain.contract import MOST_DIGESTS, CachedImages, UnwantedImages
from node_daemon.hypervisor import hypervisor
from node_daemon.storage.images import Images
from runtime import logs, subjects
from runtime.bus import requests
from runtime.bus.replies import InvalidReply
from runtime.bus.requests import Patience, Refused, Unanswered

log = logs.get(__name__)

#: Seconds between two runs, and seconds to wait for an answer.
EVERY, PATIENCE = 60.0, 5.0


async def keep_tidy(images: Images, bus: Client, node: str, *, every: float = EVERY) -> None:
    """Clean the cache for ever. While no handlers answer, no image counts as unwanted."""
    while True:
        try:
            await images.tidy(await unwanted(bus, node, images.digests()))
        except OSError as error:
            log.warning("cannot clean the image cache", error=str(error))
        await asyncio.sleep(every)


async def keep_closed(images: Images, group: Callable[[], Awaitable[int | None]], *, every: float = EVERY) -> None:
    """Let only QEMU's user pass through the folder of images, for ever. `group`: that user's group, by libvirt."""
    while True:
        try:
            images.allow(await group())
        except (OSError, hypervisor.Refused, hypervisor.Unreachable) as error:
            log.warning("the folder of images keeps its permissions", error=str(error) or repr(error))
        await asyncio.sleep(every)


async def unwanted(bus: Client, node: str, digests: set[str]) -> frozenset[str]:
    """Those of these images that are no longer in the catalogue; none if no handlers answer."""
    if not digests:
        return frozenset()
    question = CachedImages(node=node, digests=tuple(sorted(digests)[:MOST_DIGESTS]))
    try:
        answer = await requests.request(
            bus,
            subjects.cached_images(node),
            question.model_dump_json().encode(),
            Patience(PATIENCE),
            UnwantedImages.model_validate,
        )
    except (Unanswered, Refused, InvalidReply) as error:
        log.debug("no handlers answer about the catalogue", error=repr(error))
        return frozenset()
    return frozenset(answer.digests) & digests
