"""Reads the wanted documents of a node with consumers that handlers have created for it.

A consumer cannot be changed by the node: it can set it back to a position, and request its messages.
"""

import json
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.errors import StaleConnectionError

from runtime import subjects
from runtime.bus.api import api
from runtime.bus.inbox import Inbox
from runtime.bus.ordered import HEARTBEAT, MOST, Batch, Interrupted, Read, delivered, more_wait
from runtime.tasks.tasks import heed_cancellation

T = TypeVar("T")
#: Seconds after which the server ends a request for messages. One of a connection that has ended still takes messages
#: until then, because the server cannot see from another account that nobody waits for them.
EXPIRES = 2 * HEARTBEAT + 0.5
_WAIT = 3.0
#: The server's status: no sign of failure, the request for messages has ended.
_ENDED = ("404", "408")


async def consume(nc: Client, stream: str, after: int, node: str, read: Read[T]) -> AsyncGenerator[Batch[T], None]:
    """As `ordered.consume`."""
    name = subjects.wanted_consumer(node)
    async with Inbox(nc) as inbox:
        if not int((await reset(nc, stream, name, after)).get("num_pending", 0)):
            yield Batch([], after, more=False)
        expected = 1
        while True:
            ask = {"batch": MOST, "expires": int(EXPIRES * 1e9), "idle_heartbeat": int(HEARTBEAT * 1e9)}
            await nc.publish(api(nc, f"CONSUMER.MSG.NEXT.{stream}.{name}"), json.dumps(ask).encode(), inbox.subject)
            left, ended = MOST, False
            while left and not ended:
                items: list[T] = []
                pushed = ""
                try:
                    taken = await inbox.take(HEARTBEAT * 2.5, MOST)
                except TimeoutError as error:
                    raise Interrupted("no heartbeat") from error
                except StaleConnectionError as error:
                    raise Interrupted("the connection was replaced") from error
                for msg in taken:
                    if msg.subject == inbox.subject:  # a stored message keeps its own subject
                        status = (msg.headers or {}).get("Status")
                        ended = status in _ENDED
                        if status != "100" and not ended:
                            raise Interrupted(f"consumer ended: {msg.headers}")
                        if int((msg.headers or {}).get("Nats-Last-Consumer", 0)) >= expected:
                            raise Interrupted("another request has taken messages")
                        continue
                    try:
                        after, sequence, nanoseconds = delivered(msg.reply)
                        items.append(read(msg, after, nanoseconds))
                    except (ValueError, OverflowError) as error:
                        raise Interrupted("a message that is not from a consumer") from error
                    if sequence != expected:
                        raise Interrupted(f"got {sequence}, expected {expected}")
                    expected, left, pushed = expected + 1, left - 1, msg.reply
                if items:
                    yield Batch(items, after, more_wait(pushed))
                else:
                    yield Batch([], after, more=False)


async def reset(nc: Client, stream: str, name: str, after: int) -> dict[str, Any]:
    """Set the consumer to the first message after a position. Returns its state. Raises Interrupted, and nats-py's."""
    ask = json.dumps({"seq": after + 1}).encode()
    answer: dict[str, Any] = json.loads(
        (await nc.request(api(nc, f"CONSUMER.RESET.{stream}.{name}"), ask, timeout=_WAIT)).data
    )
    heed_cancellation()
    if "error" in answer:
        raise Interrupted(f"consumer {name}: {answer['error'].get('description', 'refused')}")
    return answer


async def created(nc: Client, stream: str, node: str, after: int) -> datetime:
    """When the consumer of a node was created: the stream's documents are others if it is another time."""
    answer = await reset(nc, stream, subjects.wanted_consumer(node), after)
    return datetime.fromisoformat(answer["created"])


async def stored(nc: Client, stream: str, node: str) -> set[str]:
    """The subjects of all documents of a node that the stream has. Raises Interrupted, TimeoutError, and nats-py's."""
    name, found = subjects.list_consumer(node), set[str]()
    left = int((await reset(nc, stream, name, 0)).get("num_pending", 0))
    async with Inbox(nc) as inbox:
        while left > 0:
            ask = {"batch": min(left, MOST), "no_wait": True}
            await nc.publish(api(nc, f"CONSUMER.MSG.NEXT.{stream}.{name}"), json.dumps(ask).encode(), inbox.subject)
            got, ended = 0, False
            while got < ask["batch"] and not ended:
                for msg in await inbox.take(_WAIT, MOST):
                    ended = ended or msg.subject == inbox.subject
                    if msg.subject != inbox.subject:
                        found.add(msg.subject)
                        got += 1
            left -= got
            if ended:
                break
    return found
