"""Roles as processes of their own, as `nebula up` and a package's units start them."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from runtime.local.child import Child, spawn
from tests.event_keys import put_keys
from tests.waiting import eventually

ROLES = ["handlers", "projections", "guest-data", "gateway", "node", "simulation"]
#: Roles that have a database.
READERS = ["projections", "gateway"]
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


class RoleProcess:
    """One that runs, and what it says."""

    def __init__(self, child: Child, log: Path) -> None:
        self.child = child
        self.log = log

    @property
    def name(self) -> str:
        return self.child.name

    def said(self, *words: str) -> list[str]:
        """The lines with all of these words."""
        return [line for line in self.log.read_text().splitlines() if all(word in line for word in words)]

    async def says(self, *words: str, times: int = 1) -> None:
        """Wait until there are so many lines with these words. Fails as soon as the process has ended."""

        def enough() -> bool:
            if len(self.said(*words)) >= times:
                return True
            assert self.child.running, self.log.read_text()
            return False

        await eventually(enough, f"{self.child.name} says {words} {times} times: {self.log}")

    async def ends(self) -> int:
        """Its exit status."""
        async with asyncio.timeout(60):
            return await self.child.process.wait()


@asynccontextmanager
async def role(
    name: str, home: Path, nats_url: str, dsn: str = NOWHERE, *, user: str | None = None, **more: str
) -> AsyncIterator[RoleProcess]:
    """A role with a home of its own, killed at the end. `user`: as whom; `more`: settings without their prefix."""
    folder = home / name
    folder.mkdir(exist_ok=True)
    if user is None:
        put_keys(folder)  # the same for all, as on hosts of one platform
    settings = {
        "HOME": str(folder),
        "NATS_URL": nats_url,
        "POSTGRES_DSN": dsn,
        "HTTP_PORT": "0",
        "SEED_HOST": "127.0.0.1",
        "SEED_PORT": "0",
        "LIBVIRT_URI": "test:///default",
        "SIMULATE": "1",
        "NODE": f"n-{uuid4().hex[:8]}",
        "SIMULATE_PREFIX": f"s-{uuid4().hex[:8]}",
        **more,
    }
    env = {**os.environ, **{f"NEBULA_{key}": value for key, value in settings.items()}}
    log = folder / "role.log"
    child = await spawn(name, [sys.executable, "-m", "cli.local.role", name], log, env=env, user=user)
    try:
        yield RoleProcess(child, log)
    finally:
        await child.kill()
