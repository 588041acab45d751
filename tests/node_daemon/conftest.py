"""A node's daemon on libvirt's own test driver, and on the run's bus."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.reconcile import lane
from runtime.local.servers import NatsServer
from runtime.tasks.backoff import Backoff
from tests.node_daemon.harness import URI, Node, a_node


@pytest.fixture
def connection() -> Iterator[Any]:
    """The test's own view of libvirt's test driver, which lives in this process."""
    connection = libvirt.open(URI)
    yield connection
    connection.close()


@pytest.fixture
async def hypervisor(connection: Any) -> AsyncIterator[LibvirtHypervisor]:
    hypervisor = LibvirtHypervisor(URI, "default", "test", deadline=60)
    yield hypervisor
    hypervisor.close()


@pytest.fixture
async def node(servers_home: Path, nats_server: NatsServer) -> AsyncIterator[Node]:
    async with a_node(servers_home, nats_server.url, URI) as node:
        yield node


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again at once."""
    monkeypatch.setattr(lane, "RETRY", Backoff(first=0.001, last=30.0))
