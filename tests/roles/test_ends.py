"""A role whose essential task ends, by returning or by an error, exits non-zero and names the task in one line."""

import asyncio
import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.local.servers import NatsServer
from runtime.tasks.essential import Essential, TaskEnded, until_stopped
from runtime.tasks.tasks import end
from tests.event_keys import put_keys

TASKS = [
    ("handlers", "HandlersSettings", "handlers.world.world", "World.follow", "world"),
    ("handlers", "HandlersSettings", "handlers.managers.driver", "Driver.run", "placement"),
    ("projections", "ProjectionsSettings", "projections.main", "Runner.run", "runner"),
    ("projections", "ProjectionsSettings", "projections.guest_answers", "GuestAnswers.run", "guest answers"),
    ("guest-data", "GuestDataSettings", "projections.guest_data.main", "serve_guests", "data source"),
    ("guest-data", "GuestDataSettings", "projections.guest_data.main", "remove_invalid", "copies"),
    ("gateway", "GatewaySettings", "gateway.app", "listen", "position"),
    ("node", "NodeSettings", "node_daemon.membership.presence", "Pulse.beat", "heartbeat"),
    ("node", "NodeSettings", "node_daemon.membership.membership", "Membership.keep", "lease"),
    (
        "simulation",
        "SimulationSettings",
        "node_daemon.simulation.simulated_cloud_init",
        "SimulatedGuests.run",
        "guests",
    ),
]


@pytest.mark.parametrize("how", ["raises", "returns"])
@pytest.mark.parametrize(("role", "settings", "module", "path", "task"), TASKS)
async def test_a_role_ends_with_its_essential_tasks(
    role: str, settings: str, module: str, path: str, task: str, how: str, nats_server: NatsServer, tmp_path: Path
) -> None:
    env = {
        **os.environ,
        "NEBULA_HOME": str(tmp_path),
        "NEBULA_NATS_URL": nats_server.url,
        "NEBULA_POSTGRES_DSN": "postgresql://nobody@127.0.0.1:1/none",
        "NEBULA_HTTP_PORT": "0",
        "NEBULA_SEED_HOST": "127.0.0.1",
        "NEBULA_SEED_PORT": "0",
        "NEBULA_LIBVIRT_URI": "test:///default",
        "NEBULA_SIMULATE": "1",
    }
    put_keys(tmp_path)  # the events of other tests may be in the log, which have MACs
    command = [sys.executable, "-m", "tests.roles.broken", role, settings, module, path, how]
    child = await asyncio.create_subprocess_exec(*command, env=env, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(60):
            _, err = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    lines = err.decode().splitlines()
    assert child.returncode == 1, err.decode()
    said = [line for line in lines if "essential task ended" in line]
    assert said, err.decode()
    assert task in said[0]
    assert ("a bug" in said[0]) == (how == "raises")


async def test_work_beside_essential_tasks_ends_with_them() -> None:
    async with Essential() as essential:
        essential.start("short", asyncio.sleep(0))
        with pytest.raises(TaskEnded, match="short"):
            await essential.during(asyncio.Event().wait())
        with pytest.raises(TaskEnded):
            await essential.for_ever()


async def test_work_that_succeeds_is_returned_and_the_tasks_are_ended() -> None:
    async with Essential() as essential:
        task = essential.start("long", asyncio.Event().wait())
        assert await essential.during(asyncio.sleep(0, "done")) == "done"
    assert task.cancelled()


async def test_work_that_returns_before_it_is_stopped_is_an_error() -> None:
    stop = asyncio.Event()
    with pytest.raises(TaskEnded):
        await until_stopped(stop, asyncio.sleep(0))
    stop.set()
    await until_stopped(stop, asyncio.Event().wait())  # type: ignore[arg-type]


async def test_errors_of_tasks_are_known_although_the_wait_for_their_end_is_interrupted() -> None:
    """A role that stops for long is cancelled again and again: asyncio must not log what nobody needs any more."""
    logged: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: logged.append(context))

    async def fails() -> None:
        raise OSError("the bus is gone")

    failed, deaf = asyncio.create_task(fails()), asyncio.create_task(ignores_one_cancellation())
    await asyncio.wait({failed})
    ending = asyncio.create_task(end([failed, deaf]))
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.wait({ending})
    del failed, ending
    gc.collect()
    await end([deaf])
    assert logged == []


async def ignores_one_cancellation() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()
