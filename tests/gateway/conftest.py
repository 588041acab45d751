"""One platform for all tests of the gateway; each test makes VMs of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.local.servers import Postgres
from tests.gateway.platform import Platform, platform
from tests.oidc.issuer import Issuer, started


@pytest.fixture(scope="package")
async def api(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[Platform]:
    home: Path = tmp_path_factory.mktemp("gateway")
    async with platform(home, postgres) as made:
        yield made


@pytest.fixture(scope="package")
async def issuer() -> AsyncIterator[Issuer]:
    """One OIDC server for all tests that need one."""
    async with started() as running:
        yield running
