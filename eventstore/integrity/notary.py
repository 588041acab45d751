"""The notary: it reads the log and regularly signs a checkpoint of it.

It continues from the last checkpoint, and checks each time that the event there is still the one that was signed. It
never signs a log that lost its last events or has other ones: it reports an error each time, until somebody acts.
Positions without a message that no checkpoint covers yet are parked for people, and the rest is signed. It never signs
at a message that handlers did not write: the next checkpoint names the position as excluded. Several notaries may run;
for each checkpoint only one of them signs.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import ValidationError

from eventstore.documents import Documents
from eventstore.integrity.checkpoints import Checkpoint, Keys, LogDigest, fingerprint, sign
from eventstore.integrity.signable import Signable
from eventstore.log.envelope import GENESIS, Recorded
from eventstore.log.jetstream import Conflict, Stream, Unavailable
from eventstore.log.macs import EventKeys
from eventstore.log.store import EventStore
from eventstore.parking.parking import CHECKPOINTS, HOLES, Parking
from runtime import logs, subjects

log = logs.get(__name__)

_ASK_AGAIN = 40
_NEAR = 16
AT_A_TIME = 64
"""Number of messages of the stream of checkpoints that are in memory: anybody on the bus may store large ones there."""
MOST_STRANGERS = 10_000
"""At most so many checkpoints of unknown keys are compared with the log in one step, the oldest first. The others are
parked."""


class Disagrees(Exception):
    """The log is not the one that was signed. The text says where it differs."""


class Checkpoints:
    """The stream of checkpoints."""

    def __init__(self, nc: Client, stream: str = subjects.CHECKPOINTS, *, timeout: float = 5.0) -> None:
        self._stream = Stream(nc, stream, timeout=timeout)
        self._documents = Documents(nc, stream)

    async def count(self) -> int:
        """The number of messages in the stream: checkpoints, and others that somebody stored there."""
        return await self._stream.last_position()

    async def number(self, number: int) -> Checkpoint | None:
        """The checkpoint in the n-th message, or None if there is no such message. Raises Disagrees if it is none."""
        if number < 1:
            return None
        page, _ = await self._stream.page(number - 1, subjects.CHECKPOINT, 1)
        return parsed(page[0]) if page else None

    async def newest(self, number: int, keys: Keys | None = None) -> tuple[Checkpoint | None, int]:
        """The newest checkpoint among the first `number` messages, and the number of its message; (None, 0) if there is
        none. `keys`: only one that a key of these has signed.
        """
        while number > 0:
            start = max(0, number - _NEAR)
            page, _ = await self._stream.page(start, subjects.CHECKPOINT, number - start)
            for recorded in reversed(page):
                found = checkpoint_in(recorded)
                if found is not None and (keys is None or found.signed_by(keys)):
                    return found, recorded.position
            number = start
        return None, 0

    async def following(self, number: int) -> Checkpoint | None:
        """The first checkpoint after the first `number` messages, or None."""
        async for _, checkpoint in self.valid(number):
            return checkpoint
        return None

    async def valid(self, after: int = 0, until: int | None = None) -> AsyncIterator[tuple[int, Checkpoint]]:
        """Like `read`, without the messages that are no checkpoints."""
        async for number, recorded in self.read(after, until):
            checkpoint = checkpoint_in(recorded)
            if checkpoint is not None:
                yield number, checkpoint

    async def read(self, after: int = 0, until: int | None = None) -> AsyncIterator[tuple[int, Recorded]]:
        """The messages after the `after`-th up to the `until`-th, with their numbers."""
        while True:
            page, _ = await self._stream.page(after, subjects.CHECKPOINT, AT_A_TIME)
            for recorded in page:
                if until is not None and recorded.position > until:
                    return
                yield recorded.position, recorded
            if not page:
                return
            after = page[-1].position

    async def before(self, position: int) -> int:
        """The number of messages before the first checkpoint of a position after this one."""
        low, high = 0, await self.count()
        while low < high:
            middle = (low + high + 1) // 2
            found, _ = await self.newest(middle)
            if found is None or found.position <= position:
                low = middle
            else:
                high = middle - 1
        return low

    async def append(self, checkpoint: Checkpoint, last: int) -> None:
        """Store a checkpoint after the `last`-th message. Raises Conflict if there is already another message."""
        body = checkpoint.model_dump_json(exclude_none=True).encode()
        await self._documents.put(subjects.CHECKPOINT, body, last=last)


async def pages(store: EventStore, after: int, to: int) -> AsyncIterator[list[Recorded]]:
    """The log after position `after` up to `to`, page by page. It ends early only if the server has no more.

    Any replica may answer; if it lags, the read is repeated for a while.
    """
    patience = _ASK_AGAIN
    while after < to:
        page = [recorded for recorded in await store.read(after) if recorded.position <= to]
        if page:
            yield page
            after, patience = page[-1].position, _ASK_AGAIN
        elif patience:
            patience -= 1
            await asyncio.sleep(0.05)
        else:
            return


def parsed(recorded: Recorded) -> Checkpoint:
    try:
        return Checkpoint.model_validate_json(recorded.body)
    except ValidationError as error:
        raise Disagrees(f"message {recorded.position} in the stream of checkpoints is not a checkpoint") from error


def checkpoint_in(recorded: Recorded) -> Checkpoint | None:
    """The checkpoint in a message; None if it is none."""
    try:
        return parsed(recorded)
    except Disagrees:
        return None


class Notary:
    """Signs with one key. `known`: the public keys whose checkpoints it trusts, in addition to its own.

    A checkpoint of an unknown key is accepted if it is correct for this log. All other messages in the stream of
    checkpoints are parked and ignored, because anybody on the bus can store them.
    """

    def __init__(
        self,
        nc: Client,
        key: Ed25519PrivateKey,
        known: Keys | None = None,
        parking: Parking | None = None,
        event_keys: EventKeys | None = None,
    ) -> None:
        public = key.public_key()
        self._key = key
        self._known = {fingerprint(public): public, **(known or {})}
        self._nc = nc
        self._store = EventStore(nc, event_keys)
        self._checkpoints = Checkpoints(nc)
        self._parking = parking or Parking(nc)
        self._seen: LogDigest | None = None
        self._signable = Signable()

    async def step(self) -> Checkpoint | None:
        """Sign the log up to its end. None if there is nothing new, or another notary was first.

        Raises Disagrees if the log does not contain what was read or signed before, Unavailable if it does not answer.
        """
        number = await self._checkpoints.count()
        latest, at = await self._checkpoints.newest(number, self._known)
        digests = await self._read_on(latest, await self._unknown_positions(at, number))
        async for _, stray in self._checkpoints.read(at, number):
            found = checkpoint_in(stray)
            after = latest.position if latest else 0
            if found is not None and is_correct(found, latest, digests) and self._signable.allows(found, after):
                latest = found
            else:
                await self._park(stray, found)
        end, excluded = self._signable.after(latest.position if latest else 0)
        if end is None:
            return None
        previous = latest.id if latest else GENESIS
        checkpoint = sign(self._key, subjects.EVENTS, end, previous, datetime.now(UTC), excluded)
        try:
            await self._checkpoints.append(checkpoint, number)
        except Conflict:
            return None
        return checkpoint

    async def _unknown_positions(self, after: int, until: int) -> set[int]:
        """The positions of the checkpoints of unknown keys, for which the digest of the log is needed."""
        positions = set[int]()
        async for _, found in self._checkpoints.valid(after, until):
            positions.add(found.position)
            if len(positions) == MOST_STRANGERS:
                break
        return positions

    async def _park(self, stray: Recorded, found: Checkpoint | None) -> None:
        """Park a message that somebody stored among the checkpoints. It stays in the stream, and
        all readers ignore it.
        """
        reason = (
            "it is no checkpoint" if found is None else "no known key signed it, and it is not correct for this log"
        )
        await self._parking.park(
            CHECKPOINTS,
            str(stray.position),
            subject=stray.subject,
            position=stray.position,
            error=reason,
            headers=stray.headers,
            body=stray.body,
        )

    async def _read_on(self, latest: Checkpoint | None, wanted: Collection[int]) -> dict[int, str]:
        """Read the log from the last known position to its end; the first time, from the latest trusted checkpoint.

        Returns the digests at the `wanted` positions that were read.
        """
        seen, digests = self._seen, dict[int, str]()
        if seen is None:
            seen = latest.at if latest is not None else LogDigest()
            await self._park_earlier(seen.position)
        last = await self._store.last_position()
        furthest = max(seen.position, latest.position if latest else 0)
        if last < furthest:
            raise Disagrees(f"the log ends at position {last}, but it had events up to {furthest} before")
        if seen.position:
            await self._same(seen)
        async for page in pages(self._store, seen.position, last):
            for recorded in page:
                if recorded.position != seen.position + 1:
                    await self._hole(seen.position, recorded.position, latest.position if latest else 0)
                seen = seen.after(recorded)
                self._signable.add(seen, genuine=recorded.fault() is None)
                if seen.position in wanted:
                    digests[seen.position] = seen.digest
                if latest is not None and seen.position == latest.position and seen.digest != latest.digest:
                    raise Disagrees(f"the log up to position {latest.position} is not the one that was signed")
        if seen.position < last:
            raise Disagrees(f"position {seen.position + 1} is missing from the log")
        self._seen = seen
        return digests

    async def _hole(self, before: int, after: int, signed: int) -> None:
        """Park a range of positions without a message. nats-server may skip a position after a failed write.

        A signed digest covers which positions have messages, so no message can be removed afterwards, and `verify`
        reports each hole for ever. Raises Disagrees if the stream's leader has a message there, or if a signed event
        was there.
        """
        if before < signed < after or await self._store.next_position(before) != after:
            raise Disagrees(f"{missing(before, after)} is missing from the log")
        log.error("log damaged: positions are missing", after=before, next=after)
        await self._park_hole(before, after)

    async def _park_hole(self, before: int, after: int) -> None:
        """Park the hole for people, once."""
        error = f"no message is at {missing(before, after)}: an archive of this log cannot be restored"
        await self._parking.park(
            HOLES, str(before + 1), subject=subjects.events(), position=before + 1, error=error, size=0
        )

    async def _is_whole(self) -> bool:
        """Whether each position of the log has a message. Raises Unavailable."""
        try:
            state = (await self._nc.jetstream().stream_info(subjects.EVENTS)).state
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"the log does not answer: {error!r}") from error
        return state.messages == state.last_seq

    async def _park_earlier(self, signed: int) -> None:
        """Park the holes before the latest checkpoint, which another process may have passed without parking them."""
        if not signed or await self._is_whole():
            return
        before = 0
        async for page in pages(self._store, 0, signed):
            for recorded in page:
                if recorded.position != before + 1 and await self._store.next_position(before) == recorded.position:
                    await self._park_hole(before, recorded.position)
                before = recorded.position

    async def _same(self, seen: LogDigest) -> None:
        async for page in pages(self._store, seen.position - 1, seen.position):
            if page[0].digest == seen.event:
                return
        raise Disagrees(f"the event at position {seen.position} is not the one that was there before")


def missing(before: int, after: int) -> str:
    """The positions between two positions, in words."""
    return f"positions {before + 1} to {after - 1}" if after > before + 2 else f"position {before + 1}"


def is_correct(stranger: Checkpoint, latest: Checkpoint | None, digests: Mapping[int, str]) -> bool:
    """Whether a checkpoint of an unknown key follows the latest one and has the digest of this log."""
    last = latest.position if latest else 0
    follows = stranger.position > last and stranger.previous == (latest.id if latest else GENESIS)
    return follows and stranger.log == subjects.EVENTS and digests.get(stranger.position) == stranger.digest
