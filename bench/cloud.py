"""A whole cloud for a benchmark: real servers and real role processes on free ports, in a directory of its own."""

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt

from bench.http import Connection
from runtime.local.child import free_port
from runtime.local.servers import start_nats, start_postgres

PROJECT = "bench"
IMAGE = "blank"


@dataclass
class Cloud:
    home: Path
    nats_url: str
    http_port: int
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    def connection(self) -> Connection:
        return Connection("127.0.0.1", self.http_port)

    def pss_mib(self) -> dict[str, float]:
        """Proportional set size of each role, in MiB: shared pages are split among those who share them."""
        return {name: round(pss_mib(process.pid), 1) for name, process in self.processes.items()}

    async def prepare(self) -> None:
        """A project and an image without an operating system."""
        path = self.home / "images" / "blank.raw"
        path.parent.mkdir()
        body = b"\0" * 510 + b"\x55\xaa" + b"\0" * (1024 * 1024 - 512)
        path.write_bytes(body)
        async with self.connection() as http:
            await expect(http, "POST", "/v1/projects", {"id": PROJECT, "name": "Bench"})
            image = {"id": IMAGE, "source": str(path), "sha256": hashlib.sha256(body).hexdigest()}
            await expect(http, "POST", "/v1/images?wait=30s", image)


async def expect(http: Connection, method: str, path: str, body: Any = None) -> Any:
    """The body of an answer that has to be a success. A read waits for read models that are behind."""
    answer = await http.request(method, path, body)
    while method == "GET" and answer.status == 503 and b"position_not_reached" in answer.body:
        await asyncio.sleep(0.1)
        answer = await http.request(method, path, body)
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {answer.body[:500]!r}")
    return answer.json() if answer.body else None


def pss_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0


@asynccontextmanager
async def cloud(roles: Sequence[str], **settings: str) -> AsyncIterator[Cloud]:
    """Servers and roles, up and answering; everything is stopped and removed in the end."""
    base = Path("/var/tmp")  # QEMU runs as another user: not under /root or /tmp
    home = Path(tempfile.mkdtemp(prefix="nebula-bench-", dir=base))
    home.chmod(0o755)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        if "NEBULA_LIBVIRT_URI" in settings:
            stack.callback(remove_domains, settings["NEBULA_LIBVIRT_URI"], home)
        nats = await start_nats(home)
        stack.push_async_callback(nats.stop)
        postgres = await start_postgres(home)
        stack.push_async_callback(postgres.stop)
        made = Cloud(home, nats.url, free_port())
        env = {
            **os.environ,
            "NEBULA_HOME": str(home),
            "NEBULA_NATS_URL": nats.url,
            "NEBULA_POSTGRES_DSN": postgres.dsn,
            "NEBULA_HTTP_PORT": str(made.http_port),
            "NEBULA_SEED_HOST": "127.0.0.1",
            "NEBULA_SEED_PORT": str(free_port()),
            "NEBULA_LOG_LEVEL": "warning",
            **settings,
        }
        log = stack.enter_context((home / "roles.log").open("wb"))
        for role in roles:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cli.local.role", role, env=env, stderr=log, stdout=log
            )
            made.processes[role] = process
            stack.push_async_callback(_end, process)
        await _healthy(made)
        yield made


def remove_domains(uri: str, home: Path) -> None:
    """What a benchmark that failed leaves: guests outlive their platform on purpose."""
    connection = libvirt.open(uri)
    for domain in connection.listAllDomains():
        with contextlib.suppress(libvirt.libvirtError):  # gone by itself
            if str(home) in domain.XMLDesc():
                domain.destroy()
                domain.undefine()
    connection.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _healthy(made: Cloud) -> None:
    """Wait until commands are accepted."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for role, process in made.processes.items():
            if process.returncode is not None:
                raise RuntimeError(f"{role} ended: {(made.home / 'roles.log').read_text()[-3000:]}")
        try:
            async with made.connection() as http:
                answer = await http.request("POST", "/v1/tags", {"id": "warm", "name": "warm"})
                if answer.status in (200, 202, 409):
                    return
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError(f"no answer within a minute: {(made.home / 'roles.log').read_text()[-3000:]}")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of all lies."""
    return statistics.quantiles(values, n=100)[round(share * 100) - 1]
