"""Nodes ask which images in their cache the platform no longer has. They may remove those.

Each request gets a reply: a malformed request is counted and refused.
"""

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from domain.base import Rejected
from domain.contract import CachedImages, UnwantedImages
from domain.image import ImagePhase
from domain.references import Reference
from eventstore.log.store import EventStore
from handlers.images.pieces import parse_request
from handlers.refusals import refusal
from handlers.world.world import World
from runtime import logs, subjects
from runtime.bus import replies
from runtime.bus.malformed import Malformed
from runtime.bus.replies import Refusal
from runtime.bus.responder import Answer, Responder

log = logs.get(__name__)

QUEUE = "handlers"


async def answer_nodes(nc: Client, store: EventStore, world: World, malformed: Malformed) -> None:
    """Answer requests from now on."""
    responder = Responder(nc, refusal)

    async def reply(msg: Msg) -> Answer:
        request = parse_request(msg, CachedImages)
        await world.reached(await store.last_position())  # an image that was just registered is not unwanted
        return Answer(replies.accepted(UnwantedImages(digests=unwanted(world, request.digests))))

    def note(msg: Msg, error: Exception, refused: Refusal) -> None:
        if isinstance(error, Rejected | ValidationError):
            malformed.note("cached-images", msg.subject, error)
        else:
            log.debug("request of a node not answered; it will ask again", subject=msg.subject, error=repr(error))

    async def answer(msg: Msg) -> None:
        if responder.accepts(msg):
            await responder.carry_out(msg, reply, note)

    await nc.subscribe(subjects.CACHED_IMAGES_OF_ALL, queue=QUEUE, cb=answer)


def unwanted(world: World, digests: tuple[str, ...]) -> tuple[str, ...]:
    """The digests that belong to no registered image, nor to an image of a VM."""
    known = {
        image.sha256
        for image in world.images()
        if image.phase in (ImagePhase.VERIFYING, ImagePhase.AVAILABLE)
        or world.references.in_use(Reference("image", image.id))
    }
    return tuple(digest for digest in digests if digest not in known)
