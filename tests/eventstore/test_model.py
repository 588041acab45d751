"""Whatever is asked of the log, in any order and whatever breaks meanwhile: it does what a list would do."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests.chaos.run import impatient
from tests.eventstore.both import Rig, rig, run
from tests.eventstore.programs import Step, programs


@pytest.fixture(scope="module")
def soon() -> Iterator[None]:
    with impatient():
        yield


@pytest.fixture(scope="module")
async def real(soon: None, servers_home: Path) -> AsyncIterator[Rig]:
    """A server of our own, to be killed."""
    async with rig(servers_home / "model") as made:
        yield made


@settings(max_examples=25, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(program=programs)
async def test_the_log_does_what_a_list_would_do(real: Rig, program: list[Step]) -> None:
    await run(real, program)
