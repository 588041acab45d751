"""Nodes ask which of the images they keep are in the catalogue no more: they may then remove them.

Each question gets an answer: a question that makes no sense is counted and refused.
"""

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError
from pydantic_core import to_json

from domain.base import Rejected
from domain.contract import CachedImages, UnwantedImages
from domain.image import ImagePhase
from eventstore.log.store import EventStore, Unavailable
from handlers.commands import invalid, problem
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
            asked = question(msg.subject, msg.data)
            await world.reached(await store.last_position())  # an image that was just registered is not unwanted
            told = to_json(UnwantedImages(digests=unwanted(world, asked.digests)))
        except Rejected as error:
            malformed.note(
                "cached-images",
                msg.subject,
                error.__cause__ if isinstance(error.__cause__, ValidationError) else error.detail,
            )
            told = to_json(problem(error))
        except Unavailable as error:
            log.debug("a node is not answered now; it will ask again", subject=msg.subject, error=repr(error))
            told = to_json(problem(Rejected("log_unavailable", "the log cannot be read now; try again", status=503)))
        await responder.answer(msg, told)

    await nc.subscribe(subjects.CACHED_IMAGES_OF_ALL, queue=QUEUE, cb=answer)


def question(subject: str, body: bytes) -> CachedImages:
    """What a node asks. Raises Rejected for what is no question, or one of another node."""
    try:
        asked = CachedImages.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from error
    if asked.node != subjects.node_of(subject):
        raise Rejected("invalid_request", "it claims to be of another node", status=422, field="node")
    return asked


def unwanted(world: World, digests: tuple[str, ...]) -> tuple[str, ...]:
    """Those that no image in the catalogue has, and no VM is made from."""
    made_from = {vm.image for vm in world.vms()}
    known = {
        image.sha256
        for image in world.images()
        if image.phase in (ImagePhase.VERIFYING, ImagePhase.AVAILABLE) or image.id in made_from
    }
    return tuple(digest for digest in digests if digest not in known)
