"""The clock of one process is set off: of Python, of a program without libc, and of the database."""

import asyncio
import sys
import time
from datetime import datetime
from pathlib import Path

import httpx
import psycopg
import pytest

from runtime.local.servers import start_nats, start_postgres
from tests.cluster import clock
from tests.processes import children_of

pytestmark = pytest.mark.skipif(not clock.POSSIBLE, reason="needs root and x86-64")
SAYS = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
OFFSETS = (600, -600, 0)


async def test_the_clock_of_python_jumps_and_its_monotonic_one_does_not() -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SAYS, stdin=pipe, stdout=pipe)
    assert process.stdin is not None and process.stdout is not None
    for wanted in OFFSETS:
        clock.set_off(process.pid, wanted)
        assert clock.offset(process.pid) == wanted
        process.stdin.write(b"\n")
        wall, monotonic = map(float, (await process.stdout.readline()).split())
        assert wall - time.time() == pytest.approx(wanted, abs=60)
        assert monotonic - time.monotonic() == pytest.approx(0, abs=60)
    process.kill()
    await process.wait()
    with pytest.raises(OSError, match="No such"):
        clock.set_off(process.pid, 600)


async def test_the_clock_of_the_log_s_server_jumps(servers_home: Path) -> None:
    server = await start_nats(servers_home / "clock")
    try:
        for wanted in OFFSETS:
            clock.set_off(server.pid, wanted)
            async with httpx.AsyncClient(trust_env=False) as http:
                answer = await http.get(f"http://127.0.0.1:{server.monitor}/varz")
            said = datetime.fromisoformat(answer.json()["now"].split(".")[0] + "+00:00")
            assert said.timestamp() - time.time() == pytest.approx(wanted, abs=60)
    finally:
        await server.stop()


async def test_the_clock_of_the_database_jumps(servers_home: Path) -> None:
    server = await start_postgres(servers_home / "clock-postgres")
    try:
        async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as session:
            for wanted in OFFSETS:
                for number in (server.pid, *children_of(server.pid)):
                    clock.set_off(number, wanted)
                row = await (await session.execute("SELECT extract(epoch FROM clock_timestamp())")).fetchone()
                assert row is not None
                assert float(row[0]) - time.time() == pytest.approx(wanted, abs=60)
    finally:
        await server.stop()
