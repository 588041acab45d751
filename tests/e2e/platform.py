"""`nebula up` as an operator would start it, in a directory of its own and on free ports; and its HTTP API."""

import asyncio
import hashlib
import json
import os
import signal
import ssl
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import libvirt

from bench import homes
from runtime.bus import bus
from runtime.bus.accounts.table import MAINTENANCE
from runtime.files.files import put
from runtime.local.child import free_port
from runtime.settings import Common, default_home
from tests.waiting import eventually

Json = dict[str, Any]
#: Nothing here is HTTPS. By default each client reads all CAs first, which costs more than a call.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TERMINAL = ("succeeded", "failed", "timed_out", "cancelled")


@dataclass
class Platform:
    home: Path
    port: int
    seed_port: int
    settings: dict[str, str]
    process: asyncio.subprocess.Process | None = None
    printed: list[str] = field(default_factory=list)
    _reader: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "NEBULA_HOME": str(self.home),
            "NEBULA_HTTP_PORT": str(self.port),
            "NEBULA_SEED_PORT": str(self.seed_port),
            "NEBULA_NODE": "e2e",
            "NEBULA_UNSIGNED_NODES": "false",
            "NEBULA_IMAGE_HOSTS": "127.0.0.1",
            "NEBULA_IMAGE_PATHS": f"{self.home}:{os.environ.get('NEBULA_HOME') or default_home()}/cache",
            "NEBULA_URL": self.url,
            **self.settings,
        }

    async def up(self) -> None:
        """Start, and wait until it says that it is ready."""
        self.printed.clear()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli.main",
            "up",
            env=self.env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        ready = asyncio.Event()
        self._reader = asyncio.create_task(self._read(ready))
        waiting = asyncio.create_task(ready.wait())
        ended = asyncio.create_task(self.process.wait())
        await asyncio.wait({waiting, ended}, timeout=180, return_when=asyncio.FIRST_COMPLETED)
        assert ready.is_set(), "nebula up did not come up:\n" + "\n".join(self.printed) + self.logs()
        ended.cancel()

    async def _read(self, ready: asyncio.Event) -> None:
        assert self.process and self.process.stdout
        async for line in self.process.stdout:
            self.printed.append(line.decode().rstrip())
            if line.startswith(b"ready"):
                ready.set()

    async def down(self, sig: signal.Signals = signal.SIGINT) -> int:
        """End it as Ctrl-C does; its exit status."""
        assert self.process
        if self.process.returncode is None:
            self.process.send_signal(sig)
        status = await self.process.wait()
        if self._reader:
            await self._reader
        return status

    def pid(self, role: str) -> int:
        """The process number of a role or of a server."""
        match role:
            case "nats":
                return int((self.home / "nats.pid").read_text())
            case "postgres":
                return int((self.home / "postgres" / "postmaster.pid").read_text().split()[0])
            case _:
                return int((self.home / "run" / f"{role}.pid").read_text())

    def kill(self, role: str) -> None:
        os.kill(self.pid(role), signal.SIGKILL)

    def logs(self, lines: int = 15) -> str:
        parts = []
        for file in sorted((self.home / "log").glob("*.log")):
            tail = file.read_text(errors="replace").splitlines()[-lines:]
            parts.append(f"\n--- {file.name}\n" + "\n".join(tail))
        return "".join(parts)

    def credential(self, name: str) -> Path:
        """The file with a credential of the bus."""
        return self.home / "bus" / f"{name}.creds"

    def on_bus(self, credential: str | None) -> Common:
        """The settings of a connection to the bus. `credential`: the name of its file; None to have none."""
        url = f"nats://127.0.0.1:{(self.home / 'nats.port').read_text().strip()}"
        return Common(home=self.home, nats_url=url, nats_creds=self.credential(credential) if credential else None)

    @asynccontextmanager
    async def maintenance(self) -> AsyncIterator[bus.Connection]:
        """A connection to the bus that may do everything with streams."""
        nc = await bus.connect(self.on_bus(MAINTENANCE), "tests")
        try:
            yield nc
        finally:
            await nc.close()

    def client(self) -> httpx.AsyncClient:
        token = (self.home / "admin.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=90, verify=NO_TLS)

    async def call(self, method: str, path: str, body: Json | None = None, **headers: str) -> Json:
        """A call that has to succeed; tried again, as clients do, while nobody answers or 503 is said.

        A command has one key for all its tries, so that it happens once.
        """
        if method != "GET":
            headers = {"Idempotency-Key": str(uuid.uuid4()), **headers}
        deadline = time.monotonic() + 120
        while True:
            try:
                async with self.client() as http:
                    answer = await http.request(method, path, json=body, headers=headers)
                if answer.status_code != 503:
                    break
                failure = answer.text
            except httpx.TransportError as error:
                failure = repr(error)
            assert time.monotonic() < deadline, f"{method} {path}: {failure}{self.logs()}"
            await asyncio.sleep(0.1)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}{self.logs()}"
        found: Json = answer.json() if answer.content else {}
        return found

    async def finished(self, operation: str, seconds: float = 120) -> Json:
        """The operation, once it has ended."""

        async def ended() -> Json | None:
            found = await self.call("GET", f"/v1/operations/{operation}?wait=5s")
            return found if found["status"] in TERMINAL else None

        try:
            done: Json = await eventually(ended, f"operation {operation} ended", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}{self.logs()}") from error
        return done

    async def succeed(self, method: str, path: str, body: Json | None = None, **headers: str) -> Json:
        """A command that has to succeed, to its end; the answer to the command."""
        accepted = await self.call(method, path, body, **headers)
        done = await self.finished(accepted["operation"]["id"])
        assert done["status"] == "succeeded", f"{method} {path}: {done}{self.logs()}"
        return accepted

    async def event_types(self, vm: str) -> list[str]:
        page = await self.call("GET", f"/v1/events?vm={vm}&limit=500")
        return [event["type"].rsplit(".", 1)[-1] for event in page["items"]]

    async def nebula(self, *arguments: str) -> Json:
        """What a command of the CLI prints with `--output json`; it has to end with status 0."""
        command = [sys.executable, "-m", "cli.main", *arguments, "--output", "json"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, env=self.env, stdout=pipe, stderr=pipe)
        out, err = await process.communicate()
        assert process.returncode == 0, (arguments, out.decode(), err.decode())
        found: Json = json.loads(out)
        return found

    async def register(self, image: str, path: Path, **more: str) -> None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        await self.succeed("POST", "/v1/images", {"id": image, "source": str(path), "sha256": digest, **more})

    async def blank_image(self, **more: str) -> None:
        """An image without an operating system: QEMU runs it, and its processor sleeps for ever (cli; hlt)."""
        file = self.home / "blank.raw"
        file.write_bytes(b"\xfa\xf4".ljust(510, b"\0") + b"\x55\xaa" + b"\0" * (1024 * 1024 - 512))
        await self.register("blank", file, **more)


@asynccontextmanager
async def platform(**settings: str) -> AsyncIterator[Platform]:
    with homes.home("e2e") as home:
        put(home / "nats.port", str(free_port()))  # or two that start at the same time both take 4222
        made = Platform(home, free_port(), free_port(), settings)
        try:
            await made.up()
            yield made
        finally:
            if made.process is not None and made.process.returncode is None:
                await made.down()
            if "NEBULA_SIMULATE" not in settings:
                remove_domains(home)


def domains(home: Path) -> list[str]:
    """The uuids of the domains whose files are in this directory."""
    connection = libvirt.open("qemu:///system")
    try:
        return [found.UUIDString() for found in connection.listAllDomains() if str(home) in described(found)]
    finally:
        connection.close()


def described(domain: libvirt.virDomain) -> str:
    """A domain's XML; empty when it has just gone."""
    try:
        xml: str = domain.XMLDesc()
    except libvirt.libvirtError:
        return ""
    return xml


def remove_domains(home: Path) -> None:
    """What a failed test left behind: guests outlive their platform on purpose."""
    connection = libvirt.open("qemu:///system")
    try:
        homes.remove_guests(connection, [home])
    finally:
        connection.close()
