"""A short soak: people at work, processes dying, and in the end everything says the same."""

import pytest

from tests.soak.run import Plan, run


@pytest.mark.qemu
async def test_a_short_soak() -> None:
    figures = await run(Plan(seed=7, seconds=14, nodes=5, vms=4, real=1, pause=(1.0, 4.0)), print)
    assert figures.differences == []
    assert figures.accepted.total() > 50
    assert figures.kills.total() > 2
    assert figures.fed > 50
