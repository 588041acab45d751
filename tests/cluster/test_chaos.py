"""A short run of `make chaos-cluster`: the leader is killed, then all three servers at the same moment, then a role."""

import logging
import os

import pytest

from bench import homes
from tests.cluster.run import run


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")
async def test_what_was_promised_is_kept() -> None:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # nats-py over TLS warns at each end of a connection
    with homes.home("chaos") as home:
        figures = await run(home, 7, 0, ["leader-killed", "all-killed", "role-killed"], 3, print)
    assert figures.violations == []
    assert figures.accepted > 50
