"""The consumers with which a node in its own account reads its wanted documents: it may not create consumers itself."""

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from eventstore.log.store import Unavailable
from runtime import subjects
from runtime.bus.api import has_accounts


async def provide(nc: Client, node: str) -> None:
    """Create the consumers of a node if they are missing. Nothing to do on a server without accounts.

    Raises Unavailable.
    """
    if not has_accounts(nc):
        return
    js = nc.jetstream()
    for name, headers_only in ((subjects.wanted_consumer(node), None), (subjects.list_consumer(node), True)):
        config = ConsumerConfig(
            name=name,
            durable_name=name,
            filter_subject=subjects.wanted_of(node),
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.NONE,
            headers_only=headers_only,
            max_waiting=64,
        )
        try:
            await js.add_consumer(subjects.WANTED, config)
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the consumers of node {node} cannot be created: {error!r}") from error
