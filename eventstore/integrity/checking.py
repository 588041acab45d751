"""A process that checks ranges of the log for `verify log`, so that all processors are used.

`runtime.tasks.workers` answers requests. It gets its keys and the foreign types first, and then the ranges.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from eventstore.integrity.sound import Checker, Sound
from eventstore.log.macs import Key, Keys
from runtime.bus.bulk import Bytes
from runtime.tasks import workers


class Orders(NamedTuple):
    """What a process needs to know. `keys`: the event keys by id, each with the last position that it may sign."""

    keys: dict[str, tuple[bytes, int | None]] | None
    signer: str
    since: int
    foreign: tuple[str, ...]

    @classmethod
    def of(cls, keys: Keys | None, foreign: Sequence[str]) -> Self:
        if keys is None:
            return cls(None, "", 0, tuple(foreign))
        known = {id_: (key.secret, key.until) for id_, key in keys.by_id.items()}
        return cls(known, keys.signer, keys.since, tuple(foreign))

    def checker(self) -> Checker:
        if self.keys is None:
            return Checker(None, self.foreign)
        keys = {id_: Key(secret, until) for id_, (secret, until) in self.keys.items()}
        return Checker(Keys(keys, self.signer, self.since), self.foreign)


@dataclass(frozen=True)
class Worker:
    """One process. It checks one range at a time."""

    process: workers.Worker

    @property
    def pid(self) -> int:
        return self.process.pid

    @classmethod
    async def start(cls, orders: Orders) -> Self:
        """Raises OSError."""
        return cls(await workers.Worker.start(__name__, tuple(orders)))

    async def check(self, first: int, messages: Sequence[Bytes]) -> Sound | None:
        """As `Checker.check`. Raises OSError or EOFError if the process has ended."""
        answer = await self.process.ask((first, list(messages)))
        return Sound(*answer) if answer is not None else None

    async def stop(self) -> None:
        await self.process.stop()


def prepared(orders: Any) -> Callable[[Any], Any]:
    """The function that checks a range, for these orders."""
    checker = Orders(*orders).checker()

    def check(request: Any) -> Any:
        first, messages = request
        sound = checker.check(first, messages)
        return (sound.first, sound.digests, sound.aggregates) if sound is not None else None

    return check


if __name__ == "__main__":
    workers.serve(prepared)
