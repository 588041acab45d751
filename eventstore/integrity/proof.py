"""What proves one event: the event before it, the one that follows it, its MAC, and a signed checkpoint that covers it.

All of it is read from the log itself. `nebula verify log` proves the whole log; this is for a look at one event.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nats.aio.client import Client

from eventstore.integrity.checkpoints import BadKey, Checkpoint, LogDigest, public_keys
from eventstore.integrity.notary import Checkpoints, pages
from eventstore.log.envelope import GENESIS, Recorded
from eventstore.log.jetstream import Stream, Unavailable
from eventstore.log.judge import Malformed, judge_after
from eventstore.log.macs import EventKeys
from eventstore.log.store import EventStore
from runtime import subjects

#: Maximum number of messages of the same subject that are looked at on each side: most of them are malformed.
MOST_NEIGHBOURS = 16
#: Maximum number of messages that are read to compare the log with a checkpoint.
MOST_READ = 5000
#: Seconds for each question to the stream of checkpoints.
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Covering:
    """The first checkpoint that covers an event. `signed`: whether a known key signed it; None if no key is known.

    `matches`: whether the log from the checkpoint before it on has the signed digest; None if that is too much to read.
    """

    checkpoint: Checkpoint
    signed: bool | None
    matches: bool | None


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of one message. `fault`: why it is no event at its position; None if it is one.

    `previous`: the event before it, by which it was judged. `following`: the next event of its aggregate, and
    `confirmed` whether that names its digest (None if there is none yet). `covering`: None if no checkpoint covers it
    yet, or if the stream of checkpoints cannot be read.
    """

    fault: Malformed | None
    previous: Recorded | None
    linked: bool
    following: Recorded | None
    confirmed: bool | None
    covering: Covering | None


class Proofs:
    """Finds proofs. `keys`: the file with the public keys of the notaries; it may be missing."""

    def __init__(self, nc: Client, event_keys: EventKeys | None, keys: Path | None) -> None:
        self._log = Stream(nc, subjects.EVENTS, event_keys=event_keys)
        self._store = EventStore(nc, event_keys)
        self._checkpoints = Checkpoints(nc, timeout=PATIENCE)
        self._keys = keys

    async def of(self, recorded: Recorded) -> Proof:
        """The proof of a message of the log. Raises Unavailable if the log does not answer."""
        previous = await self._previous(recorded)
        version, digest = (version_of(previous), previous.digest) if previous is not None else (0, GENESIS)
        verdict = judge_after(recorded, version, digest)
        following = await self._following(recorded)
        return Proof(
            fault=verdict if isinstance(verdict, Malformed) else None,
            previous=previous,
            linked=recorded.headers.get("ce-prevhash") == digest,
            following=following,
            confirmed=None if following is None else following.headers.get("ce-prevhash") == recorded.digest,
            covering=await self._covering(recorded.position),
        )

    async def _previous(self, recorded: Recorded) -> Recorded | None:
        """The event of the same aggregate before it; the newest message, if none of the last few is that event."""
        newest: Recorded | None = None
        position = recorded.position
        for _ in range(MOST_NEIGHBOURS):
            found = await self._log.last_before(recorded.subject, position)
            if found is None:
                break
            newest = newest or found
            if found.digest == recorded.headers.get("ce-prevhash") and found.fault() is None:
                return found
            position = found.position
        else:
            return newest
        return newest if version_of(recorded) > 1 else None

    async def _following(self, recorded: Recorded) -> Recorded | None:
        """The next event of the same aggregate; malformed messages are passed over."""
        position, version = recorded.position, version_of(recorded)
        for _ in range(MOST_NEIGHBOURS):
            found = await self._log.next_of(recorded.subject, position)
            if found is None:
                return None
            if found.fault() is None and version_of(found) == version + 1:
                return found
            position = found.position
        return None

    async def _covering(self, position: int) -> Covering | None:
        try:
            keys = self._known()
            number = await self._checkpoints.before(position - 1)
            first: Covering | None = None
            async for at, checkpoint in self._checkpoints.valid(number, number + MOST_NEIGHBOURS):
                signed = checkpoint.signed_by(keys) if keys else None
                if signed is not False:
                    return Covering(checkpoint, signed, await self._matches(checkpoint, at - 1, keys))
                first = first or Covering(checkpoint, signed, None)
        except Unavailable:
            return None
        return first

    def _known(self) -> Mapping[str, Ed25519PublicKey]:
        if self._keys is None or not self._keys.exists():
            return {}
        try:
            return public_keys(self._keys)
        except BadKey:
            return {}

    async def _matches(self, checkpoint: Checkpoint, number: int, keys: Mapping[str, Ed25519PublicKey]) -> bool | None:
        """Whether the log between the checkpoint before and this one has the digest of this one."""
        before, _ = await self._checkpoints.newest(number, keys or None)
        at = before.at if before is not None else LogDigest()
        if checkpoint.position - at.position > MOST_READ:
            return None
        async for page in pages(self._store, at.position, checkpoint.position):
            for recorded in page:
                at = at.after(recorded)
        return (at.position, at.digest, at.event) == (checkpoint.position, checkpoint.digest, checkpoint.event)


def version_of(recorded: Recorded) -> int:
    """Its number in its aggregate; 0 if it says none."""
    text = recorded.headers.get("ce-aggregateversion", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
