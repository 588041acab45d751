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


#: Files that take longest, the longest first: they are begun first, so that no worker is left with one at the end.
#: The first builds the image of a stock Debian on a new machine. `test_seed_disk.py`, which needs this image too, comes
#: after the files that the other two or three workers begin with, and after the one that the worker of the first has
#: next, so that nobody waits.
LONGEST = (
    "e2e/test_boot.py",
    "e2e/test_kill.py",
    "node_daemon/test_crash.py",
    "gateway/test_schemathesis.py",
    "console/test_journey.py",
    "e2e/test_isolation.py",
    "cluster/test_chaos.py",
    "e2e/test_seed_disk.py",
    "node_daemon/test_hypervisor.py",
    "e2e/test_local_node.py",
    "several/test_kills.py",
    "e2e/test_simulation.py",
    "roles/test_stops.py",
    "upgrade/test_rolling.py",
    "cluster/test_leader.py",
    "several/test_room.py",
    "node_daemon/test_process.py",
    "e2e/test_soak.py",
    "node_daemon/test_consoles.py",
    "handlers/test_fences.py",
    "attacks/test_bridge.py",
    "handlers/test_handlers.py",
    "projections/test_upgrade.py",
    "node_daemon/test_host_firewall.py",
    "gateway/test_access.py",
    "projections/test_malformed.py",
    "gateway/test_console.py",
    "e2e/test_local_user.py",
    "e2e/test_accounts.py",
    "eventstore/test_model.py",
    "bus_accounts/test_renewal.py",
    "cli/test_other_host.py",
    "e2e/test_rescue.py",
    "cli/test_up.py",
    "cli/test_stolen_node.py",
    "node_daemon/test_guest_failures.py",
    "gateway/test_reads.py",
    "e2e/test_secrets.py",
    "projections/test_runner.py",
    "gateway/test_own_writes.py",
    "gateway/test_waits.py",
    "contracts/test_cluster.py",
    "cli/test_catalog.py",
    "handlers/test_attacking_node.py",
    "gateway/test_matrix.py",
    "contracts/test_recorders.py",
    "integrity/test_log.py",
    "handlers/test_two_handlers.py",
    "bus_accounts/test_matrix.py",
    "eventstore/test_follow.py",
    "gateway/test_oidc.py",
    "gateway/test_code_login.py",
    "console/test_oidc_page.py",
    "console/test_pages.py",
    "node_daemon/test_faults.py",
    "attacks/test_data_source.py",
    "gateway/test_health.py",
    "attacks/test_frames.py",
)


#: Makes starts of processes cheap.
PRELOAD = pytest.StashKey[Preload]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """What our processes import is imported while pytest reads the tests. A controller of workers starts none."""
    config = session.config
    if not config.option.collectonly and not config.getoption("numprocesses", None):
        stack = ExitStack()
        stack.enter_context(quick_initdb.installed())
        config.add_cleanup(stack.close)
        config.stash[PRELOAD] = begin()
        config.add_cleanup(config.stash[PRELOAD].end)


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
    """Long files first. `--dist loadfile` runs the tests of a file in one worker, since they share its servers.

    Raises UsageError for tests of one id: pytest-xdist would run only one of them. Since pytest 9.2, schemathesis gives
    all tests of a function the id of the function, so here they get the operation's.
    """
    for item in items:
        operation = getattr(item, "operation_label", None)
        if operation is not None and item.id.params is None:
            item._id = item.id.with_params(operation)
    twice = [id_ for id_, count in Counter(item.nodeid for item in items).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"several tests have one id, and pytest-xdist runs one of them: {', '.join(twice)}")
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
