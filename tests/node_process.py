"""`nebula node` as an operator starts it: a process of its own, on a folder of its own, and what it says."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import eventually

QUICK = ("call=0.001", "image=0", "boot=0.1", "lease=0.1", "shutdown=0.1")
SECONDS = tuple(word for each in QUICK for word in ("--seconds", each))


@dataclass
class NodeProcess:
    home: Path
    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    async def says(self, text: str) -> None:
        """Wait until it has said this on standard error."""
        try:
            await eventually(lambda: text in self.said(), f"it says {text!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it said:\n{self.said()}") from None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        """As `kill -9` does."""
        if self.process.returncode is None:
            self.signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def node_process(home: Path, nats_url: str, *arguments: str, **settings: str) -> AsyncIterator[NodeProcess]:
    """`nebula node` with these arguments; leaving kills it."""
    environment = {
        **os.environ,
        "NEBULA_HOME": str(home),
        "NEBULA_NATS_URL": nats_url,
        "NEBULA_HEARTBEAT_SECONDS": "0.2",
        "NEBULA_RESYNC_SECONDS": "0.2",
        **settings,
    }
    home.mkdir(exist_ok=True)
    log = home / f"node-{len(list(home.glob('node-*.log')))}.log"
    command = [sys.executable, "-m", "cli.main", "node", *arguments]
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=file)
    started = NodeProcess(home, process, log)
    try:
        yield started
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
        await started.kill()


def simulated(prefix: str, count: int = 1) -> tuple[str, ...]:
    """The arguments for simulated nodes in a region of their own, called as they are."""
    return ("--simulate", str(count), "--prefix", prefix, "--region", prefix, "--no-phone-home", *SECONDS)
