"""The services of compose.yaml as processes: their commands and environment, with folders in place of volumes."""

import asyncio
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from node_daemon.membership.credentials import Files
from runtime.bus import bus
from runtime.bus.guest_credentials import GuestFiles
from runtime.files.private import PASSABLE
from runtime.local.child import Child, find_program, free_port, spawn
from runtime.local.servers import PostgresRole, start_postgres
from runtime.settings import AuthoritySettings, Common
from tests.test_deployment import PASSED_ON, SERVICES, environment
from tests.waiting import eventually

TOKEN = "operator-of-the-tests"
ROLES = ("authority", "handlers", "projections", "gateway", "guest-data")


class Composed:
    """`folder`: has a folder for each volume."""

    def __init__(self, folder: Path, dsns: dict[str, str]) -> None:
        self.folder = folder
        self.dsns = dsns
        self.nats, self.http, self.seed = free_port(), free_port(), free_port()

    def place(self, service: str, path: str) -> str:
        """Where a path inside a container of this service is here. The longest mount decides."""
        mounts = sorted((mount.split(":") for mount in SERVICES[service].get("volumes", [])), key=lambda m: -len(m[1]))
        for volume, inside, *_ in mounts:
            if path == inside or path.startswith(f"{inside}/"):
                (self.folder / volume).mkdir(exist_ok=True)
                (self.folder / volume).chmod(PASSABLE)  # guest-data becomes another user if root starts it
                return str(self.folder / volume) + path.removeprefix(inside)
        return str(self.folder / f"only-{service}") + path

    def env(self, service: str) -> dict[str, str]:
        given = environment(service) if "build" in SERVICES[service] else SERVICES[service]["environment"]
        found = {name: value for name, value in os.environ.items() if not name.startswith("NEBULA_")}
        for name, value in given.items():
            if name in PASSED_ON:
                continue
            found[name] = self.place(service, value) if value.startswith("/") else value
        replaced = {
            "NEBULA_NATS_URL": f"nats://127.0.0.1:{self.nats}",
            "NEBULA_NODE_NATS_URL": f"nats://127.0.0.1:{self.nats}",
            "NEBULA_POSTGRES_DSN": self.dsns.get(service, ""),
            "NEBULA_HTTP_HOST": "127.0.0.1",
            "NEBULA_SEED_HOST": "127.0.0.1",
            "NEBULA_TOKENS_FILE": str(self.folder / "tokens"),
            "NEBULA_NATS_PORT": str(self.nats),
        }
        found |= {name: value for name, value in replaced.items() if name in given}
        if service in ("bus-init", "authority"):
            found |= {
                "NEBULA_BUS_FILES": str(self.files()),
                "NEBULA_BUS_RESOLVER": self.place("nats", "/data/accounts"),
            }
        return found | {"NEBULA_HTTP_PORT": str(self.http), "NEBULA_SEED_PORT": str(self.seed)}

    def files(self) -> Path:
        """A folder in which the volumes of all roles are mounted."""
        files = self.folder / "files"
        if not files.exists():
            files.mkdir()
            base = f"{AuthoritySettings().bus_files}/"
            for _, inside in (mount.split(":") for mount in SERVICES["bus-init"]["volumes"]):
                if inside.startswith(base):
                    (files / inside.removeprefix(base)).symlink_to(self.place("bus-init", inside))
        return files

    async def start(self, service: str) -> Child:
        words = [sys.executable, "-m", "cli.main", *SERVICES[service]["command"]]
        if service == "nats":
            words = [str(find_program("nats-server")), *SERVICES[service]["command"]]
            words = [words[0], words[1], self.place(service, words[2])]  # on loopback here
        return await spawn(service, words, self.folder / f"{service}.log", env=self.env(service))


@asynccontextmanager
async def composed() -> AsyncIterator[Composed]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nebula-composed-")))
        folder.chmod(PASSABLE)
        postgres = await start_postgres(folder / "postgres")
        stack.push_async_callback(postgres.stop)
        dsns = {
            "gateway": postgres.dsn_of("nebula", PostgresRole.GATEWAY),
            "projections": postgres.dsn_of("nebula", PostgresRole.PROJECTIONS),
        }
        found = Composed(folder, dsns)
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        (folder / "tokens").write_text(f"admin {digest}\n")
        init = await found.start("bus-init")
        assert await asyncio.wait_for(init.process.wait(), 60) == 0
        for service in ("nats", *ROLES):
            child = await found.start(service)
            stack.push_async_callback(child.stop)
        yield found


async def printed(env: dict[str, str], *words: str) -> str:
    """What a command of the CLI prints."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", *words),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    text = (await program.communicate())[0].decode()
    assert program.returncode == 0, text
    return text


async def test_the_services_find_each_other_with_their_own_credentials() -> None:
    async with composed() as made, httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        url = f"http://127.0.0.1:{made.http}"

        async def up() -> bool:
            try:
                return (await http.get(f"{url}/healthz")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(up, "all services work", 120)
        answer = await http.post(f"{url}/v1/projects", json={"id": "web", "name": "Web"})
        assert answer.status_code in (200, 202), answer.text
        position = answer.json()["position"]
        shown = await http.get(f"{url}/v1/projects/web?min_position={position}")
        assert shown.json()["id"] == "web"
        # Handlers have the key that signs credentials of nodes, and name the bus as the host reaches it.
        home = made.folder / "host"
        here = {**os.environ, "NEBULA_URL": url, "NEBULA_TOKEN": TOKEN, "NEBULA_HOME": str(home)}
        token = re.search(r"nbj_n1_\S+", await printed(here, "node", "token", "n1"))
        assert token is not None
        await printed(here, "node", "join", url, token[0])
        for creds in (Files(home).creds, GuestFiles(home).creds):
            host = await bus.connect(Common(nats_url=f"nats://127.0.0.1:{made.nats}", nats_creds=creds), "n1")
            await host.close()
        for role in ROLES:
            log = (made.folder / f"{role}.log").read_text()
            assert not re.search(r"permission|refuses the connection", log, re.IGNORECASE), f"{role}: {log}"
