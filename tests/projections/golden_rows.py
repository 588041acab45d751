"""Digests of the rows that each read model makes of each golden history: `golden_rows.json`, with the model's version.

A row whose meaning changes without a new version would stay as it is in the databases of existing platforms. So a
digest may change only together with the version of its read model.

    python -m tests.projections.golden_rows      (writes digests of new histories, models and versions, and no other)
"""

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from bench import homes
from domain.base import Sealed
from domain.kind import SYSTEM
from domain.kinds import KINDS
from eventstore.log.envelope import GENESIS, Context, Recorded, Ref, seal
from eventstore.log.upcast import TYPE_VERSION
from projections import copies, database
from projections.books import MODELS, Books, Models, judged, write as write_rows
from projections.model import Session
from projections.past.models import PAST_MODELS
from runtime.local.servers import create_database, start_postgres
from tests.history.test_history import HERE, STORIES, decoded, lines

FILE = Path(__file__).with_suffix(".json")
STORED_AT = datetime(2026, 1, 1, tzinfo=UTC)


class Golden(TypedDict):
    """One read model: its version, the digest of its tables' DDL, and those of its rows, by the history's name."""

    version: int
    tables: str
    rows: dict[str, str]


class FixedSecrets:
    """Secrets that are the same in every run."""

    async def seed_secret(self, vm: str, boots: int) -> str:
        return f"{vm}/{boots}"

    async def seed_secrets(self, boots_of: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
        return {vm: [await self.seed_secret(vm, each) for each in boots] for vm, boots in boots_of.items()}

    async def unsealed(self, sealed: Sealed) -> bytes:
        return sealed.ciphertext.encode()


def messages(story: Path, rename: Callable[[str], str] = str) -> Iterator[Recorded]:
    """A golden history as it would be in a log that has nothing else. `rename`: gives its aggregate another id."""
    kind, previous = story.name.split("-")[0], GENESIS
    ref: Ref | None = None
    name = ref_of(kind, json.loads(lines(story)[0][1])).id
    for position, (typed, written) in enumerate(lines(story), start=1):
        body = written.replace(f'"{name}"'.encode(), f'"{rename(name)}"'.encode())
        fields: dict[str, Any] = json.loads(body)
        if ref is None:
            ref = ref_of(kind, fields)
        headers, _ = seal(ref, position, previous, decoded(typed, body), Context(actor="tester"))
        headers = {name: value for name, value in headers.items() if name != TYPE_VERSION} | dict(typed)
        headers["ce-time"] = fields.get("at", STORED_AT.isoformat())
        recorded = Recorded(position, ref.subject, headers, body, STORED_AT)
        previous = recorded.digest
        yield recorded


def unknown() -> Recorded:
    """A message of a type that only a newer version knows."""
    first = next(messages(HERE / "vm-1-rich.jsonl"))
    return replace(first, headers={**first.headers, "ce-type": "nebula.vm.VmTeleported"})


def ref_of(kind: str, first: dict[str, Any]) -> Ref:
    """The aggregate that the first event of a history is about."""
    match kind:
        case "operation":
            return Ref(SYSTEM, kind, first["operation_id"])
        case "maintenance":
            return Ref(SYSTEM, kind, first["maintenance"])
        case "node":
            return Ref(SYSTEM, kind, first["info"]["node"])
        case _:
            return Ref(KINDS[kind].project_of(first.get("project", SYSTEM), first[kind]), kind, first[kind])


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def golden(dsn: str, models: Models = MODELS, stories: Sequence[Path] = STORIES) -> dict[str, Golden]:
    """The digests that this program makes, in an empty database."""
    found = {
        model.name: Golden(version=model.version, tables=digest(" ".join(model.ddl.split())), rows={})
        for model in models
    }
    async with await database.connect(dsn, "test", "golden") as conn:
        await copies.make(conn, models, "golden")
        histories = {story.stem: list(messages(story)) for story in stories}
        for name, history in (*histories.items(), ("unknown-type", [unknown()])):
            books = Books(models)
            for recorded in history:
                books.apply(*judged(recorded))
            assert not books.malformed, books.malformed
            async with conn.transaction(force_rollback=True):
                await write_rows(Session(conn, FixedSecrets()), Books(models), books)
                for model in models:
                    if rows := [row for table in model.tables for row in await rows_of(conn, table)]:
                        found[model.name]["rows"][name] = digest("\n".join(rows))
    return found


async def of_all(dsn: str) -> dict[str, Golden]:
    """The digests of the read models of the present and of the past."""
    return {**await golden(dsn), **await golden(dsn, PAST_MODELS)}


async def rows_of(conn: database.Connection, table: str) -> list[str]:
    cursor = await conn.execute(f"SELECT to_jsonb(t)::text AS row FROM {table} t ORDER BY 1".encode())
    return [f"{table} {row['row']}" for row in await cursor.fetchall()]


def stored() -> dict[str, Golden]:
    found: dict[str, Golden] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def faults(before: dict[str, Golden], now: dict[str, Golden]) -> list[str]:
    """The read models that have changed without a new version, as sentences."""
    found = []
    for name in before.keys() & now.keys():
        old, new = before[name], now[name]
        if new["version"] < old["version"]:
            found.append(f"the version of read model {name} was lowered from {old['version']} to {new['version']}")
        if new["version"] != old["version"]:
            continue
        changed = [story for story, rows in old["rows"].items() if new["rows"].get(story) != rows]
        if old["tables"] != new["tables"]:
            changed.insert(0, "its tables")
        if changed:
            found.append(
                f"read model {name} has changed ({', '.join(changed[:3])}), but not its version {new['version']}: "
                "add 1 to its `version` or `revision`, then run python -m tests.projections.golden_rows"
            )
    return sorted(found)


async def computed() -> dict[str, Golden]:
    with homes.home("tests") as home:
        postgres = await start_postgres(home, durable=False)
        try:
            return await of_all(await create_database(postgres, "golden"))
        finally:
            await postgres.stop()


def main() -> int:
    now = asyncio.run(computed())
    if found := faults(stored(), now):
        print("\n".join(found), file=sys.stderr)
        return 1
    FILE.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
