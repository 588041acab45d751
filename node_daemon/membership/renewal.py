"""Renews the credential of this host, when a third of its time has passed.

The connection goes on with the old one; nats-py reads the new one when it connects again, which it does by itself when
the server ends the connection because the old credential has expired.
"""

import asyncio
import time

from nats.aio.client import Client

from domain.contract.joining import Joined, RenewRequest
from node_daemon.membership.credentials import Files, Held
from runtime import logs, subjects
from runtime.bus import requests
from runtime.bus.replies import InvalidReply
from runtime.bus.requests import Patience, Unanswered
from runtime.tasks.backoff import Backoff
from runtime.tasks.patience import CannotRun

log = logs.get(__name__)

#: Seconds between two tries.
RETRY = Backoff(first=1.0, last=300.0)
#: Maximum number of seconds between two looks at the clock, which may jump.
MOST_SECONDS = 3600.0


async def renew(bus: Client, files: Files, held: Held) -> Held:
    """Renew once. Raises Unanswered, requests.Refused, InvalidReply, OSError, ValueError, CannotRun."""
    body = RenewRequest(public_key=held.public_key).model_dump_json().encode()
    joined = await requests.request(bus, subjects.renew(held.node), body, Patience(5.0), Joined.model_validate)
    # Whoever can answer on the bus can seal a key for this host: the one that it has decides whom it believes.
    guest = files.guest_seed()
    renewed = files.store(
        joined, files.seed(), held.gateway, held.nats_url, guest=guest, keep_key=held.keyed, own=held.own
    )
    log.info("credential renewed", node=held.node, hours=round(renewed.seconds / 3600, 2))
    return renewed


async def keep_valid(bus: Client, files: Files) -> None:
    """Renew for ever. A refusal is logged and tried again: an operator may have revoked the key by mistake."""
    held = files.held()
    while held is not None:
        while (left := held.received_at + held.seconds / 3 - time.time()) > 0:  # noqa: ASYNC110  (a clock notifies nobody)
            await asyncio.sleep(min(MOST_SECONDS, left))
        for pause in RETRY.pauses():
            try:
                held = await renew(bus, files, held)
                break
            except (Unanswered, requests.Refused, InvalidReply, OSError, ValueError, CannotRun) as error:
                log.warning("the credential cannot be renewed; it will be tried again", error=str(error) or repr(error))
            await asyncio.sleep(min(pause, held.seconds / 10))
    await asyncio.Event().wait()
