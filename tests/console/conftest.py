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


@pytest.fixture
async def tags(cloud: Bed) -> AsyncIterator[None]:
    """Two tags, `blue` and `red`, while a test runs."""
    for tag in ("blue", "red"):
        await cloud.send("POST", "/v1/tags?wait=30s", {"name": tag})
    yield
    await cloud.clean()
    for tag in ("blue", "red"):
        await cloud.send("DELETE", f"/v1/tags/{tag}?wait=30s")
