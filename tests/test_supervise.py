"""`nebula up` keeps its roles running until it is told to stop."""

import asyncio
import os
import signal
from itertools import islice
from pathlib import Path

import pytest

from runtime.local import supervise
from runtime.local.child import command_line
from runtime.local.supervise import RESTART, Role, Supervisor
from runtime.tasks.backoff import Backoff

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


def test_a_role_that_is_killed_again_and_again_is_never_away_for_long() -> None:
    """With its start, which takes about a second, it is back after two."""
    assert max(islice(RESTART.pauses(), 100)) <= 1.0


async def test_a_role_that_had_worked_is_started_again_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is the first failure, however often it was killed before."""
    monkeypatch.setattr(supervise, "HEALTHY_SECONDS", 0.0)
    monkeypatch.setattr(supervise, "RESTART", Backoff(first=0.001, last=1000.0, jitter=0.0))
    seen: set[int] = set()
    async with Supervisor([Role("a", FOREVER, {})], tmp_path) as supervisor:
        while len(seen) < 25:  # the 20th pause after failures would take minutes
            pid = (await pids_of(supervisor, 1))["a"]
            if pid not in seen:
                seen.add(pid)
                os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.001)


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
