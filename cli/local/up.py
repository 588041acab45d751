"""`nebula up`: the whole platform on this machine, from one command to the first VM.

It starts, in this order, and stops in the opposite order: the event log's server, the read models' server, libvirt
(which goes on running, as guests do), then the five roles as processes of their own. With NEBULA_SIMULATE the node's
process runs that many simulated nodes, and libvirt is left out. A server that NEBULA_NATS_URL, NEBULA_POSTGRES_DSN or a
NEBULA_LIBVIRT_URI of another host names is used and waited for. A process that ends by itself is started again.
"""

import asyncio
import contextlib
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial

from psycopg import OperationalError

from cli.client.command import trust_in
from cli.client.credentials import CA_FILE, DEFAULT_URL, Given, target
from cli.client.errors import CliError, Usage
from cli.local import home
from cli.local.accounts import Accounts, settled
from cli.local.addresses import chosen, ports, reached
from cli.local.encryption import Encryption, encryption, require_guarded
from cli.local.health import print_health
from cli.local.local_node import LocalNode
from cli.local.progress import Progress, say
from cli.local.ready import answer, client, wait_until_ready
from cli.local.role import COMMAND, PRELOADED, ROLES, SIMULATION
from cli.local.servers import kept, outside, reach_nats, reach_postgres
from projections import database
from runtime import logs
from runtime.bus import bus
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import A_NODE
from runtime.files.files import put
from runtime.files.unusable import sentence, unusable
from runtime.local.child import ServerError
from runtime.local.forks import Forks
from runtime.local.full_disk import FullDisk
from runtime.local.libvirtd import Libvirt, Silent, described, ensure_libvirt
from runtime.local.logfiles import MIB, keep_small
from runtime.local.servers import NATS_CONF, PostgresRole, postgres_port, start_nats, start_postgres
from runtime.local.supervise import Role, Supervisor
from runtime.node_keys import give, node_keys
from runtime.settings import (
    GatewaySettings,
    GuestDataSettings,
    HandlersSettings,
    NodeSettings,
    ProjectionsSettings,
    SimulationSettings,
    read,
)
from runtime.tasks.essential import Essential, TaskEnded
from runtime.tasks.patience import CannotRun

IN_ACCOUNT = "the log of {} is in an account of the bus: unset NEBULA_BUS_ACCOUNTS"


class UpSettings(GatewaySettings, HandlersSettings, ProjectionsSettings, GuestDataSettings, SimulationSettings):
    """The settings of all roles, so that a bad one is refused before anything is started."""

    #: address of the API and the bus, which then speak TLS
    listen: str | None = None

    #: start the bus with accounts, and give each role its own credential (docs/bus-access.md); without them, whoever
    #: reaches its port may do everything
    bus_accounts: bool = True

    def given(self, name: str) -> bool:
        """Whether the value is from the environment, and not the default."""
        return name in self.model_fields_set


def main(listen: str | None = None) -> None:
    """Run until SIGINT or SIGTERM, then stop everything that was started. Raises CliError.

    `listen`: the address of the API and the bus, which speak TLS then.
    """
    settings = read(UpSettings, {"listen": listen} if listen is not None else None)
    if settings.listen is not None:
        settings = settings.model_copy(update={"http_host": settings.listen})
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
        say("stopping; guests keep running")
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
        ready = Progress()
        await home.stop_leftovers(settings.home, tuple(ROLES))
        require_guarded(settings.listen, guarded=settings.bus_accounts or settings.given("nats_url"))
        tls = encryption(settings.home, settings.listen, settings.tls_cert, settings.tls_key, settings.tls_ca)
        http_port = chosen("NEBULA_HTTP_PORT", settings.http_port, settings.http_host)
        forks = await stack.enter_async_context(Forks(COMMAND, PRELOADED, settings.home / "log" / "forks.log"))

        nats_url = settings.nats_url
        own_bus = settings.bus_accounts and not settings.given("nats_url")
        host = None if settings.given("simulate") else settings.node
        accounts = _accounts(settings, host) if own_bus else None
        local = accounts.node if accounts is not None else None
        if not settings.given("nats_url"):
            port = home.nats_port(settings.home, settings.listen or "127.0.0.1")
            start = partial(start_nats, settings.home, port=port)
            if tls is not None:
                conf, address = tls.configuration(NATS_CONF), reached(tls.address).strip("[]")
                start = partial(start, conf=conf, address=address, encrypted=True)
            if accounts is not None:
                accounts.prepare(node_keys(settings.node_keys_path))
                start = partial(start, accounts=accounts.authority)
            elif settled(settings.home):
                raise ServerError(IN_ACCOUNT.format(settings.home))
            ask = accounts.write_error if accounts is not None else None
            disk = FullDisk(lambda line: say(f"{'nats':<12} {line}"), ask)
            nats_url = (await stack.enter_async_context(kept("nats", start, disk.watch))).url
            put(home.bus_url_file(settings.home), nats_url)
        else:
            home.bus_url_file(settings.home).unlink(missing_ok=True)
            await outside("nats", bus.place(settings), partial(reach_nats, settings))
        ready("nats", nats_url)

        dsns = dict.fromkeys(PostgresRole, settings.postgres_dsn)
        if not settings.given("postgres_dsn"):
            start_again = partial(start_postgres, settings.home, port=postgres_port(settings.home))
            postgres = await stack.enter_async_context(kept("postgres", start_again))
            dsns = {role: postgres.dsn_of("nebula", role) for role in PostgresRole}
            ready("postgres", f"127.0.0.1:{postgres.port}")
        else:
            where = database.place(settings.postgres_dsn)
            await outside("postgres", where, partial(reach_postgres, settings), (OperationalError,))
            ready("postgres", "as NEBULA_POSTGRES_DSN says")

        if settings.given("simulate"):
            seed_host = settings.seed_host if settings.given("seed_host") else "127.0.0.1"
        else:
            reach = partial(ensure_libvirt, settings.libvirt_uri, network=settings.network)
            libvirt = await outside("libvirt", f"libvirt at {settings.libvirt_uri}", reach, (Silent,))
            ready("libvirt", described(libvirt))
            seed_host = _seed_host(settings, libvirt)
        seed_port = chosen("NEBULA_SEED_PORT", settings.seed_port, seed_host)
        url = f"{'http' if tls is None else 'https'}://{reached(settings.http_host)}:{http_port}"
        environment = {
            "NEBULA_HOME": str(settings.home),
            "NEBULA_NATS_URL": nats_url,
            "NEBULA_HTTP_PORT": str(http_port),
            "NEBULA_PLATFORM_PORTS": ",".join(map(str, ports(http_port, seed_port, nats_url, *dsns.values()))),
            "NEBULA_TOKENS_FILE": str(settings.tokens_file or home.tokens_file(settings.home)),
            "NEBULA_SEED_HOST": seed_host,
            "NEBULA_SEED_PORT": str(seed_port),
            "NEBULA_SEED_URL": settings.seed_url or f"http://{seed_host}:{seed_port}/",
        }
        if tls is not None:
            environment |= _encrypted(settings, tls, nats_url)
            put(settings.home / CA_FILE, tls.authority.read_bytes())
        else:
            (settings.home / CA_FILE).unlink(missing_ok=True)
        put(home.api_url_file(settings.home), url)
        put(home.seed_url_file(settings.home), environment["NEBULA_SEED_URL"])
        began = datetime.now(UTC)
        connections = []
        if accounts is not None:
            trusted = {"nats_url": nats_url, "nats_ca": None if tls is None else tls.authority}
            serving = accounts.serving(settings.model_copy(update=trusted), settings.home / "log" / "nats.log")
            connections = await stack.enter_async_context(serving)
        essential = await stack.enter_async_context(Essential())
        essential.start("log files", keep_small(settings.home / "log", settings.log_mib * MIB))
        if tls is not None:
            essential.start("certificate", tls.keep())
        if accounts is not None:
            for nc in connections:
                essential.start("bus", nc.until_ended())
            for name, task in accounts.tasks():
                essential.start(name, task)
        secrets = {"node": _node_key(settings, local)}
        databases = {"gateway": dsns[PostgresRole.GATEWAY], "projections": dsns[PostgresRole.PROJECTIONS]}
        roles = [
            _role(
                settings,
                name,
                environment
                | {"NEBULA_POSTGRES_DSN": databases.get(name, "")}
                | _login(name, accounts)
                | secrets.get(name, {}),
            )
            for name in ROLES
        ]
        works = local is None or (local.has_key() and not local.is_ended())
        joins = local is not None and not local.has_key()
        now = [role for role in roles if not (joins and role.name == A_NODE)]
        supervisor = await stack.enter_async_context(Supervisor(now, settings.home / "log", forks))
        if local is not None:
            if joins:
                join = partial(local.join, client(settings.home, url))
                works = await essential.during(answer("handlers", settings.home, join))
                supervisor.add(roles[-1])
            essential.start("node", local.watch(said=not works))
        seeds = f"http://{reached(seed_host)}:{seed_port}"
        simulated = settings.simulate if settings.given("simulate") else None
        await essential.during(wait_until_ready(settings.home, url, seeds, began, ready, simulated, node=works))
        say(f"{'console':<12} {url}/")
        if works and (metrics := _metrics(settings)):
            say(f"{'metrics':<12} {metrics}")
        say(READY.format(environment=_environment(settings, url)))
        # Entered last, so it ends before the roles: a platform that is being stopped is not unhealthy.
        watching = await stack.enter_async_context(Essential())
        mine = target(Given(url), Given(), settings.home)
        watching.start("health", print_health(url, mine.token, trust_in(mine.ca)))
        await essential.during(watching.for_ever())


READY = """\
ready        until Ctrl-C; try in another terminal:
{environment}\
               nebula image build debian-12
               nebula vm create web-1 --image debian-12 --wait ready
               nebula replay vm web-1"""


def _encrypted(settings: UpSettings, tls: Encryption, nats_url: str) -> dict[str, str]:
    """What the roles need to serve and to speak TLS."""
    found = {
        "NEBULA_HTTP_HOST": tls.address,
        "NEBULA_TLS_CERT": str(tls.certificate),
        "NEBULA_TLS_KEY": str(tls.key),
        "NEBULA_TLS_CA": str(tls.authority),
    }
    if not settings.given("nats_url"):
        address = f"[{tls.address}]" if ":" in tls.address else tls.address
        port = nats_url.rsplit(":", 1)[1]
        found |= {"NEBULA_NATS_CA": str(tls.authority), "NEBULA_NODE_NATS_URL": f"tls://{address}:{port}"}
    return found


def _role(settings: UpSettings, name: str, environment: Mapping[str, str]) -> Role:
    file = home.pid_file(settings.home, name)
    file.parent.mkdir(exist_ok=True)
    program = SIMULATION if name == "node" and settings.given("simulate") else name
    return Role(name, [*COMMAND, program, str(file)], environment)


def _accounts(settings: UpSettings, node: str | None) -> Accounts:
    """`node`: the name of the node of this host, if there is one."""
    authority, seconds = Authority(settings.home), settings.node_credential_hours * 3600
    local = LocalNode(settings.home, node, authority, seconds) if node is not None else None
    return Accounts(authority, local, simulated=node is None)


def _node_key(settings: UpSettings, local: LocalNode | None) -> dict[str, str]:
    """The setting with the key of the node. Without accounts it is written here. Raises CannotRun, OSError.

    Simulated nodes are in one process, which knows the root of their keys.
    """
    if local is not None:
        return {"NEBULA_NODE_KEY_FILE": str(local.files.node_key)}
    if settings.given("simulate"):
        node_keys(settings.node_keys_path)
        return {"NEBULA_NODE_KEYS_FILE": str(settings.node_keys_path)}
    file = settings.node_key_file or settings.home / "node.key"
    give(node_keys(settings.node_keys_path), settings.node, file)
    return {"NEBULA_NODE_KEY_FILE": str(file)}


def _login(name: str, accounts: Accounts | None) -> dict[str, str]:
    """The setting with the credential of a role on the bus; none without accounts."""
    if accounts is None:
        return {}
    return {"NEBULA_NATS_CREDS": str(accounts.file(name))}


def _seed_host(settings: UpSettings, libvirt: Libvirt) -> str:
    """The address on which the cloud-init data source listens: the host's on the guests' network, if there is one."""
    if settings.given("seed_host"):
        return settings.seed_host
    return "127.0.0.1" if libvirt.virt_type == "test" else libvirt.host_address


def _metrics(settings: UpSettings) -> str:
    """Where the node shows its metrics; empty if it shows none. Simulated nodes show none by default."""
    port = settings.metrics_port
    if not settings.given("metrics_port") and not settings.given("simulate"):
        port = NodeSettings.model_fields["metrics_port"].default
    return f"http://{reached(settings.metrics_host)}:{port}/metrics" if port and settings.usage_seconds else ""


def _environment(settings: UpSettings, url: str) -> str:
    """The `export` line that another terminal needs, if the home or the URL is not the usual one."""
    unusual = [f"NEBULA_HOME={settings.home}"] if settings.given("home") else []
    unusual += [f"NEBULA_URL={url}"] if url != DEFAULT_URL else []
    return f"               export {' '.join(unusual)}\n" if unusual else ""
