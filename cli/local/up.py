"""`nebula up`: the whole platform on this machine, from one command to the first VM.

It starts, in this order, and stops in the opposite order: the event log's server, the read models' server, libvirt
(which goes on running, as guests do), then the five roles as processes of their own. With NEBULA_SIMULATE the node's
process runs that many simulated nodes, and libvirt is left out. A server that NEBULA_NATS_URL, NEBULA_POSTGRES_DSN or a
NEBULA_LIBVIRT_URI of another host names is used and waited for. A process that ends by itself is started again.
"""

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import httpx
from psycopg import OperationalError

from cli.client.client import Client, Document, path
from cli.client.credentials import DEFAULT_URL, Given, target
from cli.client.errors import CliError, Refused, Unreachable, Usage
from cli.client.output import duration, emit
from cli.local import home
from cli.local.role import ROLES, SIMULATION
from projections import database
from runtime import logs
from runtime.bus import bus
from runtime.files.files import put
from runtime.files.unusable import sentence, unusable
from runtime.images.disk_room import free_bytes
from runtime.local.child import ServerError, free_port
from runtime.local.full_disk import LOOK_SECONDS, ROOM, FullDisk
from runtime.local.libvirtd import LOCAL, Libvirt, Silent, ensure_libvirt, kvm_trouble
from runtime.local.logfiles import MIB, keep_small
from runtime.local.servers import NatsServer, Postgres, PostgresRole, postgres_port, start_nats, start_postgres
from runtime.local.supervise import Role, Supervisor
from runtime.settings import (
    GatewaySettings,
    GuestDataSettings,
    HandlersSettings,
    ProjectionsSettings,
    SimulationSettings,
    read,
)
from runtime.tasks import tasks
from runtime.tasks.backoff import Backoff
from runtime.tasks.essential import Essential, TaskEnded
from runtime.tasks.patience import PASSING, CannotRun, one_line, patiently
from runtime.text.masking import masked

#: Seconds for the roles to be ready: they may have a long log to read first.
START_SECONDS = 300.0
#: Seconds before a server that ended is started again, when an attempt failed: doubled from the first to the last.
RETRY = Backoff(first=2.0, last=30.0)
#: Seconds of life after which a server is started again even if its disk is full.
HEALTHY_SECONDS = 30.0

#: Seconds between two looks at the health of the platform, and for an answer.
HEALTH_SECONDS, HEALTH_PATIENCE = 2.0, 10.0

#: The address at which a listener on all addresses is reached.
REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  (nothing is bound here)

T = TypeVar("T")
Server = TypeVar("Server", NatsServer, Postgres)


class UpSettings(GatewaySettings, HandlersSettings, ProjectionsSettings, GuestDataSettings, SimulationSettings):
    """The settings of all roles, so that a bad one is refused before anything is started."""

    def given(self, name: str) -> bool:
        """Whether the value is from the environment, and not the default."""
        return name in self.model_fields_set


def say(text: str) -> None:
    """Print a line. If it cannot be written (full disk, closed pipe), the platform goes on running."""
    with contextlib.suppress(OSError):
        emit(masked(text))


class Told:
    """Prints what became ready: one aligned line each, with the seconds since the line before."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str, text: str) -> None:
        now = time.monotonic()
        say(f"{what:<12} {text} ({duration(now - self._last)})")
        self._last = now


def main() -> None:
    """Run until SIGINT or SIGTERM, then stop everything that was started. Raises CliError."""
    settings = read(UpSettings)
    logs.configure("up", "warning", settings.log_format)
    try:
        asyncio.run(_until_stopped(settings))
    except (ServerError, TaskEnded, CannotRun) as error:
        raise CliError(str(error)) from error
    except OSError as error:
        kind = Usage if unusable(error) else CliError
        raise kind(f"{sentence(error, settings.home)} (NEBULA_HOME is {settings.home})") from error


async def _until_stopped(settings: UpSettings) -> None:
    """A signal cancels the platform, while it starts and while it runs."""
    running = asyncio.create_task(platform(settings))

    def stop() -> None:
        say("stopping; guests run on")
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def platform(settings: UpSettings) -> None:
    """Start everything, print it, wait to be cancelled, then stop everything. Raises ServerError."""
    async with AsyncExitStack() as stack:
        stack.enter_context(home.locked(settings.home))
        say(f"Nebula on {settings.home}")
        tell = Told()
        await home.stop_leftovers(settings.home, tuple(ROLES))
        http_port = _port(settings, "http_port", settings.http_host)

        nats_url = settings.nats_url
        if not settings.given("nats_url"):
            port = home.nats_port(settings.home)
            start = partial(start_nats, settings.home, port=port)
            disk = FullDisk(lambda line: say(f"{'nats':<12} {line}"))
            nats_url = (await stack.enter_async_context(kept("nats", start, disk.watch))).url
        else:
            await outside("nats", bus.place(settings), partial(_reach_nats, settings))
        tell("nats", nats_url)

        dsns = dict.fromkeys(PostgresRole, settings.postgres_dsn)
        if not settings.given("postgres_dsn"):
            start_again = partial(start_postgres, settings.home, port=postgres_port(settings.home))
            postgres = await stack.enter_async_context(kept("postgres", start_again))
            dsns = {role: postgres.dsn_of("nebula", role) for role in PostgresRole}
            tell("postgres", f"127.0.0.1:{postgres.port}")
        else:
            there = database.place(settings.postgres_dsn)
            await outside("postgres", there, partial(_reach_postgres, settings), (OperationalError,))
            tell("postgres", "as NEBULA_POSTGRES_DSN says")

        if settings.given("simulate"):
            seed_host = settings.seed_host if settings.given("seed_host") else "127.0.0.1"
        else:
            reach = partial(ensure_libvirt, settings.libvirt_uri, network=settings.network)
            libvirt = await outside("libvirt", f"libvirt at {settings.libvirt_uri}", reach, (Silent,))
            tell("libvirt", _describe(libvirt))
            seed_host = _seed_host(settings, libvirt)
        seed_port = _port(settings, "seed_port", seed_host)
        url = f"http://{REACHED_AT.get(settings.http_host, settings.http_host)}:{http_port}"
        environment = {
            "NEBULA_HOME": str(settings.home),
            "NEBULA_NATS_URL": nats_url,
            "NEBULA_HTTP_PORT": str(http_port),
            "NEBULA_PLATFORM_PORTS": ",".join(map(str, _ports(http_port, seed_port, nats_url, *dsns.values()))),
            "NEBULA_TOKENS_FILE": str(settings.tokens_file or home.tokens_file(settings.home)),
            "NEBULA_SEED_HOST": seed_host,
            "NEBULA_SEED_PORT": str(seed_port),
            "NEBULA_SEED_URL": settings.seed_url or f"http://{seed_host}:{seed_port}/",
        }
        put(home.api_url_file(settings.home), url)
        put(home.seed_url_file(settings.home), environment["NEBULA_SEED_URL"])
        began = datetime.now(UTC)
        essential = await stack.enter_async_context(Essential())
        essential.start("log files", keep_small(settings.home / "log", settings.log_mib * MIB))
        databases = {"gateway": dsns[PostgresRole.GATEWAY], "projections": dsns[PostgresRole.PROJECTIONS]}
        roles = [
            _role(settings, name, environment | {"NEBULA_POSTGRES_DSN": databases.get(name, "")}) for name in ROLES
        ]
        supervisor = Supervisor(roles, settings.home / "log")
        await stack.enter_async_context(supervisor)
        seeds = f"http://{REACHED_AT.get(seed_host, f'[{seed_host}]' if ':' in seed_host else seed_host)}:{seed_port}"
        await essential.during(_wait_until_ready(settings, url, seeds, began, tell))
        say(READY.format(environment=_environment(settings, url)))
        # Entered last, so it ends before the roles do: a platform that stops is not unhealthy.
        watching = await stack.enter_async_context(Essential())
        watching.start("health", _tell_health(url))
        await essential.during(watching.for_ever())


READY = """\
ready        until Ctrl-C; try in another terminal:
{environment}\
               nebula image build debian-12
               nebula vm create web-1 --image debian-12 --wait ready
               nebula replay vm web-1"""


@asynccontextmanager
async def kept(
    name: str,
    start: Callable[[], Awaitable[Server]],
    watch: Callable[[Server], Coroutine[Any, Any, None]] | None = None,
) -> AsyncIterator[Server]:
    """A server that is started again whenever it ends, and stopped at the end. Raises ServerError if it never starts.

    `watch` looks after it while it runs, and may stop it.
    """
    server = await start()
    store = server.home / name

    async def keep() -> None:
        nonlocal server
        clock = asyncio.get_running_loop().time
        while True:
            born = clock()
            watching = asyncio.create_task(watch(server), name=f"watch {name}") if watch is not None else None
            try:
                status = await server.child.process.wait()
            finally:
                if watching is not None:
                    await tasks.end([watching])
            say(f"{name:<12} ended with status {status}; starting it again")
            if clock() - born < HEALTHY_SECONDS:
                await room()
            server = await again()

    async def again() -> Server:
        """Start the server, however long that takes."""
        for pause in RETRY.pauses():
            try:
                return await start()
            except Exception as error:  # any error: the platform cannot work without this server
                say(f"{name:<12} {error}")
            await asyncio.sleep(pause)
            await room()
        raise AssertionError("the pauses never end")

    async def room() -> None:
        """Wait until its disk is not full."""
        if await asyncio.to_thread(free_bytes, store) < ROOM:
            say(f"{name:<12} the disk of {store} is full; it is started again once {ROOM >> 20} MiB are free")
            while await asyncio.to_thread(free_bytes, store) < ROOM:  # noqa: ASYNC110  (a disk tells nobody)
                await asyncio.sleep(LOOK_SECONDS)

    keeper = asyncio.create_task(keep())
    try:
        yield server
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await server.stop()


async def outside(
    name: str,
    what: str,
    attempt: Callable[[], Awaitable[T]],
    passing: tuple[type[Exception], ...] = PASSING,
) -> T:
    """Wait for a server that we did not start; its answer. Raises CannotRun if it refuses us."""

    def begins(what: str, error: Exception) -> None:
        say(f"{name:<12} waiting for {what}: {one_line(error)}")

    return await patiently(what, attempt, passing, begins=begins, ends=lambda _: None)


async def _reach_nats(settings: UpSettings) -> None:
    nc = bus.Connection(settings, "up")
    await nc.open()
    await nc.close()


async def _reach_postgres(settings: UpSettings) -> None:
    await (await database.connect(settings.postgres_dsn, "up")).close()


def _role(settings: UpSettings, name: str, environment: Mapping[str, str]) -> Role:
    file = home.pid_file(settings.home, name)
    file.parent.mkdir(exist_ok=True)
    program = SIMULATION if name == "node" and settings.given("simulate") else name
    return Role(name, [sys.executable, "-m", "cli.local.role", program, str(file)], environment)


def _ports(http: int, seed: int, *servers: str) -> list[int]:
    """The ports of the platform, which no image is fetched from."""
    found = [int(port) for server in servers for port in re.findall(r":([0-9]{1,5})(?=[/,?]|$)", server)]
    return sorted({http, seed, *found})


def _port(settings: UpSettings, name: str, host: str) -> int:
    """The port of the settings; any free one for 0. Raises ServerError if it is in use."""
    port: int = getattr(settings, name) or free_port()
    if not home.is_free(host, port):
        raise ServerError(f"{host}:{port} is taken: set NEBULA_{name.upper()} to a free port")
    return port


def _seed_host(settings: UpSettings, libvirt: Libvirt) -> str:
    """The address on which the cloud-init data source listens: the host's on the guests' network, if there is one."""
    if settings.given("seed_host"):
        return settings.seed_host
    return "127.0.0.1" if libvirt.virt_type == "test" else libvirt.host_address


def _environment(settings: UpSettings, url: str) -> str:
    """The `export` line that another terminal needs, if the home or the URL is not the usual one."""
    unusual = [f"NEBULA_HOME={settings.home}"] if settings.given("home") else []
    unusual += [f"NEBULA_URL={url}"] if url != DEFAULT_URL else []
    return f"               export {' '.join(unusual)}\n" if unusual else ""


def _describe(libvirt: Libvirt) -> str:
    why = f": {kvm_trouble()}, so guests are slow" if libvirt.virt_type == "qemu" and libvirt.uri == LOCAL else ""
    return f"{libvirt.uri}, network {libvirt.network} ({libvirt.host_address}), type {libvirt.virt_type}{why}"


async def _wait_until_ready(settings: UpSettings, url: str, seeds: str, began: datetime, tell: Told) -> None:
    """Wait until each role works: the gateway answers, handlers decide, read models follow, the node sends heartbeats.

    `seeds`: the address of guest-data, which has to reach the projections.
    """
    api = Client(url, target(Given(url), Given(), settings.home).token, lambda _: None)
    await _answer("gateway", settings, partial(api.get, "/v1/openapi.json"))
    tell("gateway", url)
    projects = await _answer("projections", settings, partial(api.get, path("projects")))
    tell("projections", "read models answer")
    if not projects["items"]:
        await _answer("handlers", settings, partial(_create_first_project, api))
        tell("handlers", "decide; project default created")
    await _answer("guest-data", settings, partial(_serves_guests, seeds))
    tell("guest-data", seeds)
    alive = await _answer("node", settings, partial(_living_nodes, api, began))
    some = f"{alive[0]} and {settings.simulate - 1} more" if settings.given("simulate") else ", ".join(alive)
    tell("node", f"{some} ready")


async def _tell_health(url: str) -> None:
    """Print when a part of the platform fails, and why, and when it works again. Never returns.

    Prints it too when more messages are parked.
    """
    unwell, parked = "", 0
    async with httpx.AsyncClient(base_url=url, timeout=HEALTH_PATIENCE, trust_env=False) as http:
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            try:
                body = (await http.get("/healthz")).json()
                parts = {name: part for name, part in body.items() if isinstance(part, dict) and "since" in part}
                now = "; ".join(f"{name}: {part.get('detail', part['status'])}" for name, part in parts.items())
                aside = int(body.get("parked", 0)) + int(body.get("parked_more", 0))
            except (httpx.HTTPError, ValueError, AttributeError, LookupError):
                now, aside = "gateway: it does not answer", parked
            if bool(now) != bool(unwell):
                say(f"unhealthy    {now}" if now else "healthy      again")
            if aside > parked:
                say(f"degraded     {aside} parked messages that nobody has seen; see nebula parked list")
            unwell, parked = now, aside


async def _answer(role: str, settings: UpSettings, ask: Callable[[], Any]) -> Any:
    """Call `ask` until the platform answers, and return the answer. Raises ServerError if that takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return await asyncio.to_thread(ask)
        except Unreachable as error:
            if time.monotonic() > deadline:
                log = settings.home / "log" / f"{role}.log"
                raise ServerError(f"{role} is not ready after {START_SECONDS:.0f} s: {error}; see {log}") from error
        await asyncio.sleep(0.1)


def _create_first_project(api: Client) -> Document:
    """Create the project `default`, unless it exists. The read models need not show it yet."""
    try:
        return api.send("POST", path("projects"), {"id": "default", "name": "default"})
    except Refused as refusal:
        if refusal.code != "project_exists":
            raise
        return {}


def _serves_guests(url: str) -> None:
    """Raises Unreachable while guest-data cannot answer guests."""
    try:
        with httpx.Client(trust_env=False, timeout=HEALTH_PATIENCE) as http:
            answer = http.get(f"{url}/healthz")
    except httpx.HTTPError as error:
        raise Unreachable(f"{url}: {error!r}") from error
    if answer.status_code != 200:
        raise Unreachable(f"{url}: {answer.text.strip()[:300]}")


def _living_nodes(api: Client, since: datetime) -> list[str]:
    """The ids of nodes with a heartbeat since then. Raises Unreachable while there is none."""
    heard = [
        str(node["id"])
        for node in api.pages(path("nodes"))
        if node["last_seen"] and datetime.fromisoformat(node["last_seen"]) >= since
    ]
    if not heard:
        raise Unreachable("no heartbeat yet")
    return heard
