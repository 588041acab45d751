"""The version before this one and this one work side by side, while one process after the other is replaced."""

from tests.upgrade.bed import bed
from tests.upgrade.checks import differences
from tests.upgrade.load import Client, load, some_work
from tests.upgrade.steps import ORDER, replace


async def test_a_rolling_upgrade_under_load() -> None:
    async with bed() as made, made.client() as http:
        async with load(made, people=2) as seen:
            async for _ in replace(made, made.now, ORDER):
                await some_work(seen)  # with processes of both versions
        assert set(made.versions.values()) == {made.now}
        assert await differences(made, Client(made, seen, http), seen) == []
        assert len(seen.operations) > 20
        assert seen.asked > 5
