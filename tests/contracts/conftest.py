"""The library's test cases read the environment: each test gets a stream of its own on the run's server."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment

from eventstore.library.recorder import JetStreamFactory
from runtime.local.servers import NatsServer

MakeFactory = Callable[..., JetStreamFactory]


@pytest.fixture
def environment(nats_server: NatsServer) -> dict[str, str]:
    name = f"t{uuid4().hex}"
    return {
        "PERSISTENCE_MODULE": "eventstore.library.recorder",
        "NATS_URL": nats_server.url,
        "NATS_STREAM": name.upper(),
        "NATS_SUBJECT_PREFIX": name,
        "NATS_TIMEOUT": "30",  # the machine may be slow
    }


@pytest.fixture(autouse=True)
def set_environment(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def make_factory(environment: dict[str, str]) -> Iterator[MakeFactory]:
    """Factories on the test's stream: each has a connection, a thread and a memory of its own."""
    made: list[JetStreamFactory] = []

    def make(name: str = "", **settings: str) -> JetStreamFactory:
        factory: Any = InfrastructureFactory.construct(Environment(name, {**environment, **settings}))
        made.append(factory)
        return made[-1]

    yield make
    for factory in made:
        factory.close()
