"""`nebula up` keeps its roles running until it is told to stop."""

import asyncio
import os
import signal
from pathlib import Path

from runtime.local.child import command_line
from runtime.local.supervise import Role, Supervisor

FOREVER = ["sleep", "1000"]


async def test_a_role_that_is_killed_comes_back_and_the_others_stay(tmp_path: Path) -> None:
    async with Supervisor([Role("a", FOREVER, {}), Role("b", FOREVER, {})], tmp_path) as supervisor:
        first = await pids_of(supervisor, 2)
        os.kill(first["a"], signal.SIGKILL)
        while (again := await pids_of(supervisor, 2))["a"] == first["a"]:
            await asyncio.sleep(0.01)
        assert again["b"] == first["b"]
    assert supervisor.pids == {}
    assert not any(command_line(pid) for pid in again.values())


async def test_a_role_gets_its_environment_and_its_log(tmp_path: Path) -> None:
    role = Role("a", ["sh", "-c", 'echo "$GREETING"; exec sleep 1000'], {"GREETING": "hello"})
    async with Supervisor([role], tmp_path) as supervisor:
        await pids_of(supervisor, 1)
        while (tmp_path / "a.log").read_text() != "hello\n":
            await asyncio.sleep(0.01)


async def pids_of(supervisor: Supervisor, count: int) -> dict[str, int]:
    """The roles' process numbers, once `count` of them run."""
    while len(supervisor.pids) < count:
        await asyncio.sleep(0.01)
    return supervisor.pids
