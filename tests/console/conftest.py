"""One browser and one platform for all tests of a worker."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.console.bed import Bed, bed, browser


@pytest.fixture(scope="package")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as made:
        yield made


@pytest.fixture(scope="package")
async def shared() -> AsyncIterator[Bed]:
    async with bed(nodes=2) as made:
        yield made


@pytest.fixture
async def cloud(shared: Bed) -> AsyncIterator[Bed]:
    """The platform, without VMs. Its pages are closed at the end of a test, which fails if a page reported an error."""
    await shared.clean()
    shared.faults.clear()
    yield shared
    await shared.close()
    assert shared.faults == []
