"""Ends credentials of nodes: those of retired nodes by an event, and on the bus those that events have ended.

Level-triggered: after a start, every key that was ever revoked is revoked on the bus again, which changes nothing.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from nats.aio.client import Client

from domain import enrollment, node
from domain.enrollment import Enrollment, WithdrawEnrollment
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore, Unavailable
from handlers.apply import apply, manager, now
from handlers.managers.driver import Driver
from handlers.world.watch import Changes
from handlers.world.world import World
from runtime import logs, subjects
from runtime.bus import requests
from runtime.bus.accounts import revoking
from runtime.bus.replies import InvalidReply
from runtime.bus.requests import Unanswered

log = logs.get(__name__)

Revoke = Callable[[str], Awaitable[None]]
"""Ends all credentials of a public key on the bus, also on connections that are open. May raise Unavailable."""


async def nothing(_: str) -> None:
    """For a bus without accounts: there is nothing to revoke."""


async def revoke(nc: Client, public_key: str) -> None:
    """Ask the authority of the bus. Raises Unavailable if it does not answer."""
    try:
        await revoking.ask(nc, public_key)
    except (Unanswered, requests.Refused, InvalidReply) as error:
        raise Unavailable(f"a key of a node could not be revoked on the bus: {error}") from error


class Enrollments:
    """Looks at each enrollment that has changed, or whose node has."""

    def __init__(self, store: EventStore, world: World, revoke: Revoke = nothing) -> None:
        self._store = store
        self._world = world
        self._revoke = revoke
        self._watch = world.watch(("enrollment", "node"))
        #: public keys that were revoked on the bus since this process works
        self._ended: set[str] = set()

    def driver(self) -> Driver:
        return Driver("enrollments", self._look, watch=self._watch)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        for id_ in self._world.ids("enrollment") if changes.everything else {ref.id for ref in changes.refs}:
            if self._state(id_) is not None:
                driver.submit(f"node {id_}", partial(self._settle, id_))

    def _state(self, id_: str) -> Enrollment | None:
        state: Enrollment | None = self._world.get(Ref(subjects.SYSTEM, "enrollment", id_)).state
        return state

    async def _settle(self, id_: str) -> None:
        """Raises Unavailable, Conflict."""
        host = (await self._store.load(Ref(subjects.SYSTEM, "node", id_), node.evolve)).state
        state = self._state(id_)
        if host is not None and host.retired_at is not None:
            command = WithdrawEnrollment(enrollment=id_, at=now(), retired_at=host.retired_at)
            ref = Ref(subjects.SYSTEM, "enrollment", id_)
            applied = await apply(
                self._store, ref, enrollment.decide, enrollment.evolve, command, manager("enrollments")
            )
            state = applied.state
            if applied.events:
                log.info("credential of a retired node ended", node=id_)
        for key in revoked(state):
            if key not in self._ended:
                await self._revoke(key)
                self._ended.add(key)
                log.info("key of a node revoked on the bus", node=id_, key=enrollment.fingerprint_of(key))


def revoked(state: Enrollment | None) -> tuple[str, ...]:
    """All public keys of a node and its guest-data that are not valid any more."""
    if state is None:
        return ()
    last = state.key
    return (*state.revoked, *last.all) if last is not None and last.revoked_at is not None else state.revoked
