"""Read models from nothing: events per second, next to a raw ordered consumer; and `verify views` next to that. The
same for the rows of the past.

`cpu_us_per_event` is the time of the process that follows the log, `judging_us_per_event` that of the processes which
judge the messages for it, `postgres_us_per_event` that of Postgres. `memory_mib`: what the first one has at most, more
than before the replay.
"""

import asyncio
import os
import time
from pathlib import Path

from nats.aio.client import Client

from bench.scale.logs import with_bus
from bench.scale.verify import last_position, timed_floor
from eventstore.log.keyring import Keyring
from eventstore.vault.vault import Vault
from projections import database, rebuild
from projections.past.models import PAST
from projections.past.secrets import NoSecrets
from projections.position import Position
from projections.runner import Runner
from runtime.local.servers import Postgres, create_database, start_postgres
from runtime.tasks.tasks import end

TICKS = os.sysconf("SC_CLK_TCK")


async def measure(vms: int, home: Path | None) -> dict[str, float]:
    async with with_bus(vms, home) as (nc, folder):
        postgres = await start_postgres(folder)
        try:
            return await models(nc, folder, postgres)
        finally:
            await postgres.stop()


async def models(nc: Client, folder: Path, postgres: Postgres) -> dict[str, float]:
    events = await last_position(nc)
    bare = await timed_floor(nc, events)
    dsn = await create_database(postgres, "models")
    keys, vault, position = Keyring(folder / "event.keys"), Vault.of(nc, folder / "master.key"), Position()
    memory = memory_mib()
    started, used, before = time.perf_counter(), os.times(), of_postgres(postgres)
    runner = asyncio.create_task(Runner(nc, dsn, vault, position, event_keys=keys).run())
    if not await position.reach(events, 3600):
        raise RuntimeError(f"the read models are at {position.value} of {events}")
    seconds = time.perf_counter() - started
    now = os.times()
    figures = {
        "events": events,
        "events_per_second": round(events / seconds),
        "cpu_us_per_event": round((sum(now[:2]) - sum(used[:2])) / events * 1e6, 1),
        "judging_us_per_event": round((sum(now[2:4]) - sum(used[2:4])) / events * 1e6, 1),
        "postgres_us_per_event": round((of_postgres(postgres) - before) / events * 1e6, 1),
        "memory_mib": round(memory_mib(peak=True) - memory),
        "floor_per_second": round(events / bare),
        "ratio": round(bare / seconds, 3),
    }
    await end([runner])
    started = time.perf_counter()
    await rebuild.rebuild(nc, dsn, vault, keys)
    rebuilt = time.perf_counter() - started
    started = time.perf_counter()
    found = await rebuild.verify(nc, dsn, vault, keys)
    verified = time.perf_counter() - started
    if found.tables:
        raise RuntimeError(f"rows differ: {found.tables}")
    figures |= await past(nc, dsn, keys, postgres, events)
    return figures | {
        "rebuild_seconds": round(rebuilt, 1),
        "verify_views_rows": found.rows,
        "verify_views_seconds": round(verified, 1),
        "verify_views_ratio": round(verified / rebuilt, 2),
    }


async def past(nc: Client, dsn: str, keys: Keyring, postgres: Postgres, events: int) -> dict[str, float]:
    """The rows of the past from nothing, what they take on the disk, and their proof."""
    runner = Runner(nc, dsn, NoSecrets(), Position(), PAST.models, keys, parks=False, schema=PAST.schema)
    started, used, before = time.perf_counter(), time.process_time(), of_postgres(postgres)
    await runner.build()
    built = time.perf_counter() - started
    figures = {
        "past_seconds": round(built, 1),
        "past_events_per_second": round(events / built),
        "past_cpu_us_per_event": round((time.process_time() - used) / events * 1e6, 1),
        "past_postgres_us_per_event": round((of_postgres(postgres) - before) / events * 1e6, 1),
    }
    async with await database.connect(dsn, "bench", PAST.schema) as conn:
        cursor = await conn.execute(
            """SELECT sum(pg_total_relation_size(oid)) AS bytes FROM pg_class
               WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"""
        )
        row = await cursor.fetchone()
    started = time.perf_counter()
    found = await rebuild.verify(nc, dsn, NoSecrets(), keys, shelf=PAST)
    if found.tables:
        raise RuntimeError(f"rows of the past differ: {found.tables}")
    return figures | {
        "past_bytes_per_event": round(int(row["bytes"]) / events) if row is not None else 0,
        "past_verify_seconds": round(time.perf_counter() - started, 1),
    }


def of_postgres(postgres: Postgres) -> float:
    """Seconds of CPU time that the server's processes have used, without those that have ended."""
    used = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == postgres.pid or int(stat.parent.name) == postgres.pid:
            used += sum(int(each) for each in fields[11:15])
    return used / TICKS


def memory_mib(*, peak: bool = False) -> float:
    """MiB of memory that this process has, or had at most since this was last called without `peak`."""
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")
    name = "VmHWM:" if peak else "VmRSS:"
    found = dict(line.partition("\t")[::2] for line in Path("/proc/self/status").read_text().splitlines())
    return int(found[name].split()[0]) / 1024
