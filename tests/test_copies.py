"""A server whose copy of the log lacks a block is found before it starts."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore.log.store import Change, EventStore, Tip
from runtime.bus import bus, streams
from runtime.local.copies import faults
from runtime.local.servers import start_nats
from runtime.settings import Common
from tests.event_keys import KEYS
from tests.eventstore.log import CONTEXT, created, ref


@pytest.fixture
async def store(tmp_path: Path) -> Path:
    """The folder of a server that has ended, with some events."""
    server = await start_nats(tmp_path)
    nc = await bus.connect(Common(nats_url=server.url), "tests")
    await streams.ensure_all(nc.jetstream(), 1)
    for _ in range(3):
        one = ref()
        await EventStore(nc, KEYS).append([Change(Tip(one), [created(one)])], CONTEXT)
    await nc.close()
    await server.stop()
    return tmp_path / "nats"


def blocks(store: Path) -> list[Path]:
    return sorted(store.glob("jetstream/*/streams/NEBULA_EVENTS/msgs/*.blk"))


async def test_a_whole_copy_and_an_empty_folder_have_no_fault(store: Path, tmp_path: Path) -> None:
    assert blocks(store)
    assert faults(store) == []
    assert faults(tmp_path / "nothing") == []


async def test_a_missing_block_is_found(store: Path) -> None:
    blocks(store)[0].unlink()
    [fault] = faults(store)
    assert "all blocks are missing" in fault
    command = [sys.executable, "-m", "cli.main", "bus", "check", str(store)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "all blocks are missing" in done.stderr


async def test_what_the_server_makes_of_a_missing_block_is_found_too(store: Path) -> None:
    """It starts, goes on behind the last position, and says nothing."""
    blocks(store)[0].unlink()
    server = await start_nats(store.parent)
    nc = await bus.connect(Common(nats_url=server.url), "tests")
    one = ref()
    await EventStore(nc, KEYS).append([Change(Tip(one), [created(one)])], CONTEXT)
    await nc.close()
    await server.stop()
    assert len(faults(store)) == 1


async def test_a_copy_whose_blocks_begin_with_another_number_has_no_fault(store: Path) -> None:
    """So it is after a server was replaced by an empty one."""
    first = blocks(store)[0]
    first.rename(first.with_name("2.blk"))
    assert faults(store) == []


async def test_a_short_last_block_is_no_fault(store: Path) -> None:
    """The server gets the rest from the others."""
    block = blocks(store)[0]
    block.write_bytes(block.read_bytes()[:-40])
    assert faults(store) == []
