"""Real servers for the tests: one of each for the whole run, on free ports and in a folder of their own."""

import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest
import structlog

from bench import homes
from runtime.local.libvirtd import Libvirt, ensure_libvirt
from runtime.local.servers import NatsServer, Postgres, create_database, start_nats, start_postgres
from tests import quick_initdb
from tests.longest import LONGEST, Scheduling
from tests.preload.client import Preload, begin


def pytest_configure(config: pytest.Config) -> None:
    """Processes that the tests start can be interrupted, even where a shell started the tests in its background.

    And they keep what they compile: else each would compile all that it imports, which doubles the time of its start.
    A traceback in a log is the plain one, as in each role: the one that structlog takes by default prints all local
    variables, which costs seconds for each.
    No example has a deadline, since the machine may be slow. Where `CI` is set, examples are the same at every run, so
    that a change is not refused for a fault of before; elsewhere they are new ones.
    Handlers that tests start alone accept nodes without a key; what `nebula up` starts does not.
    Earlier runs that were killed have left folders and guests, which are removed once, before the workers start.
    """
    if not hasattr(config, "workerinput"):
        homes.remove_leftovers()
    hypothesis.settings.register_profile("any machine", deadline=None, derandomize="CI" in os.environ)
    hypothesis.settings.load_profile("any machine")
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault("NEBULA_UNSIGNED_NODES", "true")  # for nodes that tests play by hand
    structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing that is collected is ever garbage: the collector need not look for it, now or while tests run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


#: Makes starts of processes cheap.
PRELOAD = pytest.StashKey[Preload]()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """What our processes import is imported while pytest reads the tests. A controller of workers starts none, but what
    it installs is theirs.
    """
    config = session.config
    if config.option.collectonly:
        return
    stack = ExitStack()
    config.add_cleanup(stack.close)
    if not hasattr(config, "workerinput"):
        stack.enter_context(quick_initdb.installed())
    if not config.getoption("numprocesses", None):
        config.stash[PRELOAD] = begin()
        stack.callback(config.stash[PRELOAD].end)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    return Scheduling(config, log)


@pytest.fixture
def preload(request: pytest.FixtureRequest) -> Preload:
    return request.config.stash[PRELOAD]


@pytest.fixture
def new_interpreters(preload: Preload) -> Iterator[None]:
    """No process of this test is a fork of one that has imported everything."""
    preload.enabled = False
    yield
    preload.enabled = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first.

    Raises UsageError for tests of one id, by which a report says what has failed. Since pytest 9.2, schemathesis gives
    all tests of a function the id of the function, so here they get the operation's.
    """
    for item in items:
        operation = getattr(item, "operation_label", None)
        if operation is not None and item.id.params is None:
            item._id = item.id.with_params(operation)
    twice = [id_ for id_, count in Counter(item.nodeid for item in items).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"several tests have one id: {', '.join(twice)}")
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        name = str(item.path.relative_to(tests))
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """A command line that runs in this process closes what it makes to others: not what the next test makes."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Nor does the next test log, or stay silent, as a command line of this process is to."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def servers_home() -> Iterator[Path]:
    """Where servers keep their data. Not pytest's own folder: Postgres, as its own user, may not enter that."""
    with homes.home("tests") as home:
        yield home


@pytest.fixture(scope="session")
async def nats_server(servers_home: Path) -> AsyncIterator[NatsServer]:
    """As durable as in production: every acknowledgement is after fsync."""
    server = await start_nats(servers_home)
    yield server
    await server.stop()


@pytest.fixture(scope="session")
async def postgres(servers_home: Path) -> AsyncIterator[Postgres]:
    server = await start_postgres(servers_home, durable=False)
    yield server
    await server.stop()


async def fresh_database(server: Postgres) -> str:
    """A new, empty database; its DSN."""
    return await create_database(server, f"test_{uuid4().hex}")


@pytest.fixture(scope="session")
async def libvirt_qemu() -> Libvirt:
    """This host's libvirt, started when it is not running."""
    return await ensure_libvirt()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter, as those of `tmp_path` cannot: for what programs without rights run."""
    with homes.home("test") as folder:
        yield folder
