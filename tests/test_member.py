"""A server of a cluster that is run for a service manager: its signals, its end, and its full disk."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runtime.local import full_disk
from runtime.local.full_disk import GAVE_UP, gave_up, gives_up
from tests.processes import alive, children_of
from tests.small_disk import mounted, needs_root, resize, shrink
from tests.waiting import eventually

#: Says what it gets, or at SIGHUP its argument. The signals are those that nats-server knows.
SERVER = """
import signal, sys, time
def say(what): print(what, file=sys.stderr, flush=True)
for number in (signal.SIGHUP, signal.SIGUSR2):
    signal.signal(number, lambda number, _: say(sys.argv[number] if number < len(sys.argv) else f"got {number}"))
def end(*_): say("ends"); sys.exit(0)
signal.signal(signal.SIGTERM, end)
say("began")
while True: time.sleep(0.05)
"""


@asynccontextmanager
async def run(store: Path, *argv: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[str]]]:
    """`nebula bus run`, and what it has written until now."""
    command = [sys.executable, "-m", "cli.main", "bus", "run", str(store), "--", *argv]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    said: list[str] = []

    async def read() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            said.append(line.decode().rstrip())

    reading = asyncio.create_task(read())
    try:
        yield process, said
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def test_signals_are_passed_on_and_its_end_is_ours(tmp_path: Path) -> None:
    async with run(tmp_path, sys.executable, "-c", SERVER) as (process, said):
        await eventually(lambda: "began" in said, "it has begun")
        process.send_signal(signal.SIGHUP)
        await eventually(lambda: f"got {signal.SIGHUP}" in said, "it reads its configuration again")
        process.send_signal(signal.SIGUSR2)
        await eventually(lambda: f"got {signal.SIGUSR2}" in said, "it hands over")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert said[-1] == "ends"


@pytest.mark.parametrize("status", [0, 3])
async def test_its_status_is_ours(tmp_path: Path, status: int) -> None:
    async with run(tmp_path, sys.executable, "-c", f"import sys; sys.exit({status})") as (process, _):
        assert await process.wait() == status


async def test_it_ends_with_what_runs_it(tmp_path: Path) -> None:
    async with run(tmp_path, sys.executable, "-c", SERVER) as (process, said):
        await eventually(lambda: said, "it has begun")
        [server] = children_of(process.pid)
        process.kill()
    await eventually(lambda: not alive(server), "it has ended")


async def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with run(tmp_path, str(tmp_path / "none")) as (process, said):
        assert await process.wait() != 0
    assert "No such file" in " ".join(said)
    assert not any("Traceback" in line for line in said)


@needs_root
async def test_a_server_that_gave_up_ends_when_there_is_room(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 64) as store:
        words = f"[ERR] {GAVE_UP[0].decode()}"
        async with run(store, sys.executable, "-c", SERVER, words) as (process, said):
            await eventually(lambda: said, "it has begun")
            shrink(store)
            process.send_signal(signal.SIGHUP)
            await eventually(lambda: words in said, "it has given up")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(process.wait(), 3)
            resize(store, 64)
            assert await process.wait() == 1
        assert said[-1] == "ends"


@needs_root
async def test_it_does_not_begin_on_a_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 64) as store:
        shrink(store)
        async with run(store / "streams", sys.executable, "-c", SERVER) as (process, said):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(process.wait(), 3)
            assert said == []
            resize(store, 64)
            await eventually(lambda: "began" in said, "it has begun")


async def test_the_words_are_found_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_disk, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(full_disk, "_PIECE", 7)
    log = tmp_path / "nats.log"
    log.write_bytes(GAVE_UP[0] + b"\n")
    place = log.stat().st_size
    waiting = asyncio.create_task(gives_up(log, place))
    for text in (b"JetStream out of ", b"order\n", GAVE_UP[0][:20]):
        with log.open("ab") as file:
            file.write(text)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.1)
    with log.open("ab") as file:
        file.write(GAVE_UP[0][20:])
    await asyncio.wait_for(waiting, 20)
    assert not gave_up(b"JetStream out of order")
