"""What a node has promised to each VM has a row of its own, and its sum is in the node's row, whatever the batches."""

import json
import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest

from domain.base import Event, Resources
from domain.node import CapacityReleased, CapacityReserved, Node, NodeRegistered, evolve, stored
from eventstore.log.envelope import GENESIS, Context, Recorded, Ref, seal
from projections import bulk, copies, database
from projections.books import MODELS, judged
from projections.model import Row
from projections.reservations import Promise
from projections.transaction import apply
from runtime.local.servers import Postgres
from tests.conftest import fresh_database
from tests.domain.test_node import info
from tests.projections.golden_rows import STORED_AT, FixedSecrets

#: Ids of VMs. The last ones are no text that an index can hold, and two of them begin alike.
VMS = ["vm-1", "vm-2", "vm-3", "x" * 600 + "1", "x" * 600 + "2", "nul\x00"]
NODES = ("n1", "n2")


def history(seed: int) -> tuple[list[Recorded], dict[str, Node]]:
    """Promises, changed promises and releases on two nodes, and the nodes after them."""
    chance, recorded = random.Random(seed), list[Recorded]()
    nodes, tips = dict[str, Node](), dict[str, tuple[int, str]]()
    for number in range(1, 90):
        id_ = NODES[number % 2]
        version, digest = tips.get(id_, (0, GENESIS))
        event: Event
        if id_ not in nodes:
            event = NodeRegistered(at=STORED_AT, info=stored(info(node=id_)))
        elif chance.random() < 0.6:
            size = Resources(vcpus=chance.randint(1, 9), memory_mib=chance.randint(1, 9), disk_gib=1)
            event = CapacityReserved(at=STORED_AT, vm=chance.choice(VMS), resources=size)
        else:
            event = CapacityReleased(at=STORED_AT, vm=chance.choice(VMS))
        ref = Ref("system", "node", id_)
        recorded.append(
            Recorded(number, ref.subject, *seal(ref, version + 1, digest, event, Context(actor="t")), STORED_AT)
        )
        tips[id_] = (version + 1, recorded[-1].digest)
        after = evolve(nodes.get(id_), event)
        assert after is not None
        nodes[id_] = after
    return recorded, nodes


@pytest.mark.parametrize("copied", [1, bulk.COPIED])
@pytest.mark.parametrize("seed", range(4))
async def test_sums_and_rows_agree_however_messages_are_batched(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, seed: int, copied: int
) -> None:
    monkeypatch.setattr(bulk, "COPIED", copied)
    recorded, nodes = history(seed)
    chance = random.Random(seed)

    async def park(malformed: Sequence[object]) -> None:
        assert not malformed

    async with await database.connect(await fresh_database(postgres), "test", "promises") as conn:
        await copies.make(conn, MODELS, "promises")
        known: Mapping[Ref, Row[Any]] = {}
        borders = sorted(chance.sample(range(1, len(recorded)), 12))
        async with bulk.by_key(conn):
            for start, end in pairwise([0, *borders, len(recorded)]):
                batch = [judged(each) for each in recorded[start:end]]
                known = await apply(conn, FixedSecrets(), start, batch, MODELS, park=park, known=known)
                known = known if chance.random() < 0.7 else {}
        found = await (await conn.execute("SELECT node, vm, vcpus, memory_mib, disk_gib FROM reservations")).fetchall()
        assert {(row["node"], row["vm"]): (row["vcpus"], row["memory_mib"], row["disk_gib"]) for row in found} == {
            Promise(id_, vm).key: (of.vcpus, of.memory_mib, of.disk_gib)
            for id_, node in nodes.items()
            for vm, of in node.reservations.items()
        }
        for row in await (await conn.execute("SELECT id, state::text AS state, shown FROM nodes")).fetchall():
            whole, sum_ = nodes[row["id"]].reservations, nodes[row["id"]].reserved()
            sums = {"vcpus": sum_.vcpus, "memory_mib": sum_.memory_mib, "disk_gib": sum_.disk_gib}
            expected = {"": {"vms": len(whole), **sums}} if whole else {}
            assert json.loads(row["state"])["reservations"] == expected
            shown = json.loads(row["shown"])
            assert (shown["vms"], shown["reserved"]) == (len(whole), sums)


async def test_every_statement_finds_rows_by_an_index(postgres: Postgres) -> None:
    """Also while Postgres believes that the tables are empty, as in the first minutes."""
    recorded, _ = history(0)

    async def park(malformed: Sequence[object]) -> None:
        assert not malformed

    async with await database.connect(await fresh_database(postgres), "test", "promises") as conn:
        await copies.make(conn, MODELS, "promises")
        before = await scans(conn)  # the indexes were made of whole tables
        async with bulk.by_key(conn):
            for start in range(len(recorded)):
                await apply(conn, FixedSecrets(), start, [judged(recorded[start])], MODELS, park=park)
        after = await scans(conn)
        assert after["nodes"][1] > before["nodes"][1] and after["reservations"][1] > before["reservations"][1]
        assert {name: seq for name, (seq, _) in after.items()} == {name: seq for name, (seq, _) in before.items()}
        cursor = await conn.execute("SHOW enable_seqscan")
        assert await cursor.fetchone() == {"enable_seqscan": "on"}, "other statements are planned as before"


async def scans(conn: database.Connection) -> dict[str, tuple[int, int]]:
    """The scans of each table so far: of the whole table, and by an index."""
    await conn.execute("SELECT pg_stat_force_next_flush()")
    cursor = await conn.execute(
        """SELECT relname, seq_scan, idx_scan FROM pg_stat_user_tables
           WHERE schemaname = current_schema() AND relname NOT IN ('checkpoint', 'schema_version')"""
    )
    return {row["relname"]: (row["seq_scan"], row["idx_scan"]) for row in await cursor.fetchall()}
