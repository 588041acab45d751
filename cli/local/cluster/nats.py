"""The NATS servers of a cluster on this machine, with the files that `nebula bus init` makes for each of them."""

import json
from pathlib import Path

from cli.local.bus_authority import SERVER, Deployed
from cli.local.cluster.network import Host, Network
from runtime.bus.accounts.authority import Authority
from runtime.local import copies
from runtime.local.child import ServerError, find_program, spawn, stop_leftover
from runtime.local.servers import NatsServer, once_ready
from runtime.members import Member

PORT = 4222


def deployed(home: Path, network: Network, servers: list[str], *, simulated: bool) -> Deployed:
    """The authority of the bus in `home/authority`, which gives the files in `home/bus`. Raises OSError.

    Each server runs in its own folder there, so its paths are relative.
    """
    return Deployed(
        Authority(home / "authority"),
        simulated=simulated,
        files=home / "bus",
        resolver=Path("accounts"),
        members=tuple(Member(name, network.host(name).address) for name in servers),
        server_files=Path(),
    )


async def start_member(home: Path, host: Host, store: Path, *, wait: bool = True) -> NatsServer:
    """Start the server of a host on the streams in `store`. `wait`: return when it answers. Raises ServerError."""
    program = find_program("nats-server")
    if program is None:
        raise ServerError("nats-server is not installed: run `make setup`")
    folder = home / "bus" / f"{SERVER}-{host.name}"
    store.mkdir(parents=True, exist_ok=True)
    pid_file = home / "run" / f"nats-{host.name}.pid"
    pid_file.parent.mkdir(exist_ok=True)
    await stop_leftover(pid_file, str(pid_file))
    if found := copies.faults(store):
        raise ServerError(f"nats-{host.name} cannot start: {'; '.join(found)}; remove {store}")
    within = ["env", f"--chdir={folder}"]  # the paths in its configuration are relative
    child = await spawn(
        f"nats-{host.name}",
        [*within, str(program), "--config", "nats.conf", "--pid", str(pid_file)],
        home / "log" / f"nats-{host.name}.log",
        env={"NEBULA_NATS_PORT": str(PORT), "NEBULA_NATS_STORE": json.dumps(str(store))},
        namespace=host.namespace,
    )
    server = NatsServer(child, home, PORT, 0, host.address, encrypted=True)
    return await once_ready(server) if wait else server


def urls(network: Network, servers: list[str]) -> str:
    """The URLs of all servers, as a setting has them."""
    return ",".join(f"tls://{network.host(name).address}:{PORT}" for name in servers)
