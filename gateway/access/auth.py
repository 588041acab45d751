"""Authentication: who calls, by a bearer token that one of several sources knows."""

import asyncio
import base64
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from domain.access import Access
from gateway.access.identity import LOCAL, Identity, Source, unauthorized, unknown
from gateway.http.problems import Problem
from runtime.tasks.tasks import end

#: Paths that need no token.
OPEN = frozenset(
    {"/healthz", "/v1/ca", "/v1/join", "/v1/login", "/v1/login/begin", "/v1/login/done", "/v1/openapi.json"}
)
#: Those of them that show more to a caller with a token.
MORE_WITH_TOKEN = frozenset({"/healthz"})
#: Seconds between two looks at all callers with open feeds and connections, in addition to those after each change.
LOOK_AGAIN = 0.5

Holds = Callable[[Access], bool]
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Watch:
    """A caller with something open. `ended`: why it has to end."""

    identity: Identity
    holds: Holds
    ended: asyncio.Future[Problem]


@dataclass
class Authentication:
    """The sources of identities, in the order in which they are asked. Without any, every caller is `local`.

    `sources` is None with NEBULA_AUTH=none only. `changed` is set by a source when an identity may have changed.
    """

    sources: Sequence[Source] | None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _watches: set[_Watch] = field(default_factory=set)

    @property
    def needed(self) -> bool:
        """Whether callers need a credential."""
        return self.sources is not None

    async def identify(self, authorization: str | None) -> Identity:
        """The caller. Raises Problem: 401, and 503 if it cannot be known now."""
        if self.sources is None:
            return LOCAL
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise unauthorized("send `Authorization: Bearer <token>`")
        for source in self.sources:
            found = await source.identify(token)
            if found is not None:
                return self._in_time(found)
        raise unknown()

    def still(self, identity: Identity) -> Identity:
        """What an identity of an earlier call is now: its access may have changed.

        Raises Problem: 401 if it is no longer valid, 503 if that cannot be known now.
        """
        if self.sources is None:
            return identity
        for source in self.sources:
            found = source.still(identity)
            if found is not None:
                return self._in_time(found)
        raise unknown()

    async def lost(self, identity: Identity, holds: Holds | None = None) -> Problem:
        """Wait until an identity is no longer valid, or its access does not hold any more. Returns why.

        `holds`: whether an access is enough for what is open; without it, every access to which the caller's first
        one belongs.
        """
        enough = holds or (lambda access: access.grants >= identity.access.grants and narrower(identity.access, access))
        watch = _Watch(identity, enough, asyncio.get_running_loop().create_future())
        self._watches.add(watch)
        try:
            self._look(watch)
            return await watch.ended
        finally:
            self._watches.discard(watch)

    async def during(self, identity: Identity, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is cancelled when the identity is no longer valid. Raises Problem then."""
        working = asyncio.create_task(work)
        losing = asyncio.create_task(self.lost(identity))
        try:
            await asyncio.wait({working, losing}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise losing.result()
        finally:
            await end([working, losing])

    async def run(self) -> None:
        """End what is open of callers that are no longer valid, within LOOK_AGAIN of a change. For ever."""
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN):
                    await self.changed.wait()
            except TimeoutError:
                pass
            self.changed.clear()
            for watch in tuple(self._watches):
                self._look(watch)

    def _look(self, watch: _Watch) -> None:
        if watch.ended.done():
            return
        try:
            now = self.still(watch.identity)
        except Problem as problem:
            watch.ended.set_result(problem)
            return
        if not watch.holds(now.access):
            watch.ended.set_result(Problem(403, "forbidden", "your role has changed: this is no longer yours to read"))

    def _in_time(self, identity: Identity) -> Identity:
        if identity.ends is not None and self.clock() >= identity.ends:
            raise unauthorized("this token has expired: request a new one")
        return identity


def narrower(one: Access, other: Access) -> bool:
    """Whether `one` is read-only, or `other` is not."""
    return one.read_only or not other.read_only


def offered(subprotocols: Iterable[str]) -> str | None:
    """The `Authorization` in a WebSocket's subprotocols (`bearer.<token in base64url>`); None if there is none."""
    for each in subprotocols:
        scheme, dot, token = each.partition(".")
        if scheme == "bearer" and dot:
            try:
                raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
                return f"Bearer {raw.decode('ascii')}"
            except ValueError as error:
                raise unauthorized("the token after `bearer.` has to be in base64url") from error
    return None
