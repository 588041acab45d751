"""Reads of the past: lists of a large project in the middle of a long log, one VM, what changed, and marks.

The log is made once, as that of `scale`, and kept in the same folder (`--home`); each so-many-th VM is of one project,
which has about `--inside` VMs in the middle of the log. The read models are built in this process, those of the past
after those of the present. `--rows` is a folder that user postgres can enter, in which they stay: a later run with the
same sizes reads them, and says how long the first one took. Without it they are removed in the end.

Reads go over HTTP to a gateway that runs, as an operator and as a viewer of the project, in turn with the bare query on
a connection of its own. `…_ratio` is the median of the answers divided by that of the query. `goals` says of each goal
whether it was reached.
"""

import argparse
import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.cloud import Cloud, servers, servers_in
from bench.past_reads import LIMIT, Reader, diffs, lists, marks, one
from bench.scale.goals import Outcome, figure, most
from bench.scale.lists import connected
from bench.scale.logs import QUIET, copy, log_of, only_one
from bench.scale.models import of_postgres
from bench.scale.rows import say
from bench.scale.verify import last_position
from eventstore.log.keyring import Keyring
from eventstore.vault.vault import Vault
from projections import database, upgrade
from projections.books import MODELS
from projections.model import Standing
from projections.past import queries
from projections.past.models import PAST
from projections.past.secrets import NoSecrets
from projections.position import Position
from projections.runner import Runner
from projections.shelf import NOW, Shelf

PROJECT = "project-00"
TOKENS = {"operator": ("bench-operator", ""), "viewer": ("bench-viewer", f" viewer@{PROJECT}")}
"""The tokens of two callers, and their roles."""
FORMAT = 1
"""The version of a folder with rows."""
LIVING = 0.9
"""The share of the VMs that are not deleted."""
GOALS = (
    most(f"a list of {LIMIT} VMs in the middle, p99 of the slowest, ms", "lists", "p99_ms", 250),
    most("one VM in the middle, p99, ms", "one", "p99_ms", 20),
    most("the same, by its time, ms", "one_by_time", "p99_ms", 20),
    most("a page of what changed in any range, p99 of the slowest, ms", "diffs", "p99_ms", 1000),
    most("marks of the whole log, the first time, ms", "marks", "first_ms", 250),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vms", type=int, default=106_800, help="VMs, with nine to ten events each (106800)")
    parser.add_argument("--inside", type=int, default=10_000, help="VMs of the project in the middle (10000)")
    parser.add_argument("--rounds", type=int, default=50, help="times that each read is measured (50)")
    parser.add_argument("--home", type=Path, help="folder in which the log is kept (~/.cache/nebula-bench)")
    parser.add_argument("--rows", type=Path, help="folder in which the read models are kept (they are removed)")


async def measure(
    vms: int = 106_800, inside: int = 10_000, rounds: int = 50, home: Path | None = None, rows: Path | None = None
) -> dict[str, Any]:
    every = max(1, round(vms / 2 * LIVING / inside))
    kept = await log_of(vms, home, every)
    async with cloud_of(kept, rows) as cloud:
        nc = await cloud.bus()
        end = await last_position(nc)
        await nc.close()
        found: dict[str, Any] = {"events": end, **await built(cloud, end)}
        async with await database.connect(dsn_of(cloud), "bench", queries.SEARCH_PATH) as conn:
            found |= await sizes(conn, end)
            await cloud.start("gateway")
            async with await connected(cloud):
                pass
            read = Reader(cloud, conn, {who: token for who, (token, _) in TOKENS.items()}, PROJECT, rounds)
            async with read:
                for part in (marks(read, end), one(read, end // 2), diffs(read, end), lists(read, end // 2)):
                    measured = await part
                    say(str(measured))
                    found |= measured
    outcomes = [Outcome(goal, figure(found, goal)) for goal in GOALS]
    return found | {"goals": {each.goal.text: each.shown() for each in outcomes}}


@asynccontextmanager
async def cloud_of(kept: Path, rows: Path | None) -> AsyncIterator[Cloud]:
    """Servers on a copy of a log: in a new folder, or in one that stays."""
    settings = {**QUIET, "NEBULA_AUTH": "tokens"}
    if rows is None:
        async with servers(partial(prepared, kept), **settings) as made:
            yield with_tokens(made)
        return
    folder = rows / f"rows-{FORMAT}-{kept.name}"
    rows.mkdir(parents=True, exist_ok=True)
    with only_one(rows / f"{folder.name}.lock"):
        if not (folder / "tokens").exists():
            folder.mkdir(exist_ok=True)
            await asyncio.to_thread(prepared, kept, folder)
        async with servers_in(folder, settings) as made:
            yield with_tokens(made)


def with_tokens(cloud: Cloud) -> Cloud:
    """The same cloud, whose gateway will know the callers."""
    cloud.env["NEBULA_TOKENS_FILE"] = str(cloud.home / "tokens")
    return cloud


def prepared(kept: Path, folder: Path) -> None:
    """A copy of a log, and a file with the tokens of the callers."""
    copy(kept, folder)
    lines = [f"{name} {hashlib.sha256(token.encode()).hexdigest()}{roles}" for name, (token, roles) in TOKENS.items()]
    (folder / "tokens").write_text("\n".join(lines) + "\n")


def dsn_of(cloud: Cloud) -> str:
    return cloud.env["NEBULA_POSTGRES_DSN"]


async def built(cloud: Cloud, end: int) -> dict[str, Any]:
    """Build the read models of the present, then those of the past; or what is said of those that are there."""
    said = cloud.home / "built.json"
    lacking = [await missing(cloud, shelf, end) for shelf in (NOW, PAST)]
    if said.exists() and not any(lacking):
        figures: dict[str, Any] = json.loads(said.read_text())
        return {**figures, "rows_kept": True}
    nc = await cloud.bus()
    try:
        keys = Keyring(cloud.home / "event.keys")
        vault = Vault.of(nc, cloud.home / "master.key")
        present = Runner(nc, dsn_of(cloud), vault, Position(), MODELS, keys)
        past = Runner(nc, dsn_of(cloud), NoSecrets(), Position(), PAST.models, keys, parks=False, schema=PAST.schema)
        figures = {"rows_kept": False, **await timed(cloud, present, lacking[0], "present")}
        figures |= await timed(cloud, past, lacking[1], "past")
    finally:
        await nc.close()
    async with await database.connect(dsn_of(cloud), "bench", queries.SEARCH_PATH) as conn:
        await conn.execute("VACUUM ANALYZE")  # as autovacuum does it within minutes
    said.write_text(json.dumps(figures))
    return figures


async def missing(cloud: Cloud, shelf: Shelf, end: int) -> int:
    """The number of events that read models lack: a run that was killed goes on, and another version begins anew."""
    async with await database.connect(dsn_of(cloud), "bench", shelf.schema) as conn:
        if await upgrade.where(conn, shelf.models, shelf.schema) is not Standing.SAME:
            return end
        return end - max(0, await database.checkpoint(conn))


async def timed(cloud: Cloud, runner: Runner, events: int, name: str) -> dict[str, float]:
    """Build read models that lack so many events, and the CPU time of this process and of Postgres."""
    assert cloud.servers is not None
    if events == 0:
        return {f"{name}_events_built": 0}
    started, used, before = time.perf_counter(), time.process_time(), of_postgres(cloud.servers.postgres)
    await runner.build()
    seconds = time.perf_counter() - started
    return {
        f"{name}_seconds": round(seconds, 1),
        f"{name}_events_built": events,
        f"{name}_events_per_second": round(events / seconds),
        f"{name}_cpu_us_per_event": round((time.process_time() - used) / events * 1e6, 1),
        f"{name}_postgres_us_per_event": round((of_postgres(cloud.servers.postgres) - before) / events * 1e6, 1),
    }


async def sizes(conn: database.Connection, end: int) -> dict[str, Any]:
    """Bytes per event on the disk: of the past, and of each of its tables with and without the indexes."""
    cursor = await conn.execute(
        """SELECT relname AS name, pg_total_relation_size(oid) AS whole, pg_indexes_size(oid) AS indexes
           FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r' ORDER BY whole DESC""",
        [PAST.schema],
    )
    rows = await cursor.fetchall()
    tables = {
        row["name"]: [round(row["whole"] / end, 1), round(row["indexes"] / end, 1)]
        for row in rows
        if row["whole"] > end / 2
    }
    return {
        "past_bytes_per_event": round(sum(row["whole"] for row in rows) / end),
        "past_bytes_of_tables_and_their_indexes": tables,
    }
