"""What strangers store among the checkpoints takes no more memory than its bound, however much it is."""

import gc
from pathlib import Path

import pytest

from eventstore.integrity import notary as module
from eventstore.integrity.checkpoints import Checkpoint, LogDigest, sign, signing_key
from eventstore.integrity.notary import Checkpoints, Notary
from eventstore.log.envelope import GENESIS, Recorded
from eventstore.parking.parking import Parking
from runtime import subjects
from tests.integrity.logs import START, running


def held() -> int:
    """Messages of the stream of checkpoints that are in memory."""
    return sum(isinstance(each, Recorded) and each.subject == subjects.CHECKPOINT for each in gc.get_objects())


async def test_many_strangers_are_parked_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_A_TIME", 4)
    monkeypatch.setattr(module, "_NEAR", 4)
    counts: list[int] = []
    park = Notary._park

    async def counting(self: Notary, stray: Recorded, found: Checkpoint | None) -> None:
        counts.append(held())
        await park(self, stray, found)

    monkeypatch.setattr(Notary, "_park", counting)
    async with running() as log:
        await log.grow(3)
        first = await log.notary().step()
        assert first is not None
        stranger = signing_key(tmp_path / "checkpoint.key")
        await log.grow(3, first=3)
        wrong = sign(stranger, first.log, LogDigest(first.position + 1, "1" * 64, GENESIS), first.id, START)
        for number in range(20):
            body = b"hi" if number % 2 else wrong.model_dump_json().encode()
            await log.nc.jetstream().publish(subjects.CHECKPOINT, body)
        second = await log.notary().step()
        assert second is not None
        assert second.previous == first.id
        assert len(counts) == 20
        assert max(counts) <= 2 * 4, "a page, and perhaps the one before it"
        assert (await Parking(log.nc).get("checkpoints", "21")).open


async def test_of_too_many_strangers_the_rest_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STRANGERS", 2)
    async with running() as log:
        await log.grow(4)
        stranger = signing_key(tmp_path / "checkpoint.key")
        other = signing_key(tmp_path / "other.key")
        for position in (2**40, 2**41):
            wrong = sign(other, subjects.EVENTS, LogDigest(position, "1" * 64, GENESIS), GENESIS, START)
            await Checkpoints(log.nc).append(wrong, await Checkpoints(log.nc).count())
        right = await Notary(log.nc, stranger).step()
        assert right is not None
        await log.grow(4, first=4)
        signed = await log.notary().step()
        assert signed is not None
        assert signed.previous == GENESIS
        assert (await Parking(log.nc).get("checkpoints", "3")).open
