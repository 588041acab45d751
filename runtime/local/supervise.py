"""Keeps role processes running, for `nebula up`."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from runtime.local.child import Child, spawn
from runtime.local.forks import Forks
from runtime.tasks.backoff import Backoff

log = structlog.get_logger(__name__)

#: Seconds before a role that ended is started again. The pause grows with consecutive failures. If all processes of a
#: role are killed again and again, nobody works for the longest pause and a start, so it is short.
RESTART = Backoff(first=0.2, last=1.0)
#: If a role has run for so many seconds, its end counts as the first failure again: it had started, and worked.
HEALTHY_SECONDS = 5.0


@dataclass(frozen=True)
class Role:
    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    #: the network namespace in which it runs; None for ours
    namespace: str | None = None


@dataclass
class Supervisor:
    """Starts each role, restarts it whenever it ends, and stops all of them at the end of the block.

    Each role logs to `log_folder/<name>.log`. A role whose program is missing is tried again like any other. Use it as
    `async with Supervisor(roles, folder): …`.
    """

    roles: Sequence[Role]
    log_folder: Path
    #: starts the roles that can be forks; None: each role is a new interpreter
    forks: Forks | None = None
    _running: dict[str, Child] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Start all roles. It does not wait until they are ready: the health of each role shows that."""
        for role in self.roles:
            self.add(role)

    def add(self, role: Role) -> None:
        """Start one more role."""
        self._tasks.append(asyncio.create_task(self._keep(role), name=f"keep {role.name}"))

    async def stop(self) -> None:
        """Send SIGTERM to all roles, and SIGKILL to those that still run after STOP_SECONDS."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        living = [child for child in self._running.values() if child.running]
        await asyncio.gather(*(child.stop() for child in living))
        for child in living:
            log.info("role stopped", role=child.name, pid=child.pid, status=child.process.returncode)
        self._running.clear()

    async def __aenter__(self) -> "Supervisor":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the roles that run now, by name."""
        return {name: child.pid for name, child in self._running.items() if child.running}

    async def _start(self, role: Role) -> Child:
        """Raises OSError."""
        start = self.forks.spawn if self.forks is not None else spawn
        file = self.log_folder / f"{role.name}.log"
        return await start(role.name, role.argv, file, env=role.env, namespace=role.namespace)

    async def _keep(self, role: Role) -> None:
        pauses = RESTART.pauses()
        while True:
            born = time.monotonic()
            try:
                child = await self._start(role)
            except OSError as error:
                pause = next(pauses)
                log.warning("role cannot be started", role=role.name, error=str(error), restart_in_s=round(pause, 2))
                await asyncio.sleep(pause)
                continue
            self._running[role.name] = child
            log.info("role started", role=role.name, pid=child.pid)
            status = await child.process.wait()
            lived = time.monotonic() - born
            if lived >= HEALTHY_SECONDS:
                pauses = RESTART.pauses()
            pause = next(pauses)
            log.warning(
                "role ended",
                role=role.name,
                pid=child.pid,
                status=status,
                lived_s=round(lived, 1),
                restart_in_s=round(pause, 2),
                log=str(child.log),
            )
            await asyncio.sleep(pause)
