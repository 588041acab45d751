"""Nodes ask which of the images they keep are in the catalogue no more: they may then remove them."""

from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.contract import CachedImages, UnwantedImages
from domain.image import ImagePhase
from eventstore.store import EventStore, Unavailable
from handlers.world import World
from runtime import logs, subjects
from runtime.malformed import Malformed
from runtime.responder import Responder

log = logs.get(__name__)

QUEUE = "handlers"


async def answer_nodes(nc: Client, store: EventStore, world: World, malformed: Malformed) -> None:
    """Answer from now on."""

    responder = Responder(nc)

    async def answer(msg: Msg) -> None:
        if not responder.accepts(msg):
            return
        try:
            asked = CachedImages.model_validate_json(msg.data)
            if asked.node != subjects.node_of(msg.subject):
                raise ValueError("it claims to be of another node")
            await world.reached(await store.last_position())  # an image that was just registered is not unwanted
            told = UnwantedImages(digests=unwanted(world, asked.digests))
            await responder.answer(msg, told.model_dump_json().encode())
        except ValueError as error:
            malformed.note("cached-images", msg.subject, error)
        except Unavailable as error:
            log.debug("a node gets no answer; it will ask again", subject=msg.subject, error=repr(error))

    await nc.subscribe(subjects.CACHED_IMAGES_OF_ALL, queue=QUEUE, cb=answer)


def unwanted(world: World, digests: tuple[str, ...]) -> tuple[str, ...]:
    """Those that no image in the catalogue has, and no VM is made from."""
    made_from = {vm.image for vm in world.vms()}
    known = {
        image.sha256
        for image in world.images()
        if image.phase in (ImagePhase.VERIFYING, ImagePhase.AVAILABLE) or image.id in made_from
    }
    return tuple(digest for digest in digests if digest not in known)
