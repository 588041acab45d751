"""Two of each role, one of which is killed at a time: clients see nothing but that they have to try again."""

import itertools

import pytest

from bench.several import kills


async def test_either_of_two_is_killed_under_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is wrong, nothing is made twice, each write is found in the lists, and the feed has no gap."""
    monkeypatch.setattr(kills, "WORKERS", 3)
    monkeypatch.setattr(kills, "BEFORE", 0.2)
    monkeypatch.setattr(kills, "AFTER", 0.5)
    async with kills.two() as made:
        await kills.under_load(made, lambda: kills.deaths(made, 1))
        seen = made.seen
        assert seen.violations == []
        assert seen.calls > 20 and len(seen.vms) > 3
        assert seen.resumed >= 1, "the feed was read at a gateway that was killed"
        assert set(seen.slowest) >= set(kills.ROLES)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "PATIENCE", 1.0)


@pytest.mark.usefixtures("patient")
async def test_without_another_gateway_it_is_noticed() -> None:
    """The load is able to fail."""
    async with kills.two() as made:
        await made.kill("gateway", 0)
        await made.kill("gateway", 1)
        with pytest.raises(RuntimeError, match="no answer"):
            await kills.call(made, kills.client(), itertools.cycle(made.ports["gateway"]), "GET", "/healthz")
