"""A world that comes from a snapshot at any position is the one that read the whole log."""

from typing import Any

import pytest

from eventstore.log.envelope import Recorded
from handlers.world import aggregates
from handlers.world.contents import Restored, copied, messages
from handlers.world.world import World
from tests.handlers.logs import made, read


def content(world: World) -> list[bytes]:
    return list(messages(copied(world)))


def again(world: World) -> World:
    """The same world, by way of its messages."""
    restored = Restored(World())
    for message in content(world):
        restored.add(message)
    return restored.finish(world.position)


def everything(world: World) -> dict[str, Any]:
    """All that others ask a world for."""
    rows = {ref: world.aggregates.get(ref) for ref, *_ in world.aggregates.rows()}
    references = world.references
    return {
        "position": (world.position, world.frontier.position, world.frontier.handed_on),
        "aggregates": rows,
        "times": {ref: loaded.tip.time for ref, loaded in rows.items() if loaded is not None},
        "vms": list(world.vms()),
        "ids": {kind: world.ids(kind) for kind in world.aggregates.of_kind},
        "newest": {ref: world.frontier.newest(ref) for ref in rows},
        "users": {reference: references.users(reference) for reference, _ in references.copied()},
        "void": {id_: (one.code, one.detail, one.category, one.field) for id_, one in references.void.items()},
        "deletions": {ref: (one.users, one.begun.id, one.begun.context) for ref, one in references.deletions.items()},
        "deleted": set(world.deleted_vms),
        "forgotten": dict(world.forgotten),
        "waiting": list(world.waiting),
        "due": sorted(world.due.copied()),
        "unverified": sorted(world.unverified.copied()),
        "macs": [sorted(each, key=str) for each in world.macs.copied()],
        "visible": {node: world.visible_vms(node) for node in world.vm_index.visible},
        "unused": sorted(world.unused),
    }


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("most", [0, 3, 10**9])
def test_a_snapshot_and_the_rest_are_the_whole_log(seed: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregates.Aggregates.__init__, "__defaults__", (most,))
    log: list[Recorded] = made(seed, vms=5)
    steps = [everything(read(whole := World(), log[:1]))]
    for recorded in log[1:]:
        steps.append(everything(read(whole, [recorded])))
    final = content(whole)
    world = World()
    for position, recorded in enumerate(log, 1):
        world = again(read(world, [recorded]))
        assert everything(world) == steps[position - 1]
    read(world, log[:5])  # a repeat changes nothing
    assert everything(world)["aggregates"] == steps[-1]["aggregates"]
    for position in range(1, len(log), 7):
        assert content(read(again(read(World(), log[:position])), log[position:])) == final


def test_the_histories_have_all_that_a_world_derives() -> None:
    found: dict[str, bool] = {}
    for seed in range(12):
        world = World()
        for recorded in made(seed):
            for name, value in everything(read(world, [recorded])).items():
                found[name] = found.get(name, False) or bool(value)
    assert all(found.values()), found


def test_worlds_that_know_the_same_have_the_same_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is packed, and whether the events come from the log or were appended here."""
    log = made(3)
    plain = content(read(World(), log))
    monkeypatch.setattr(aggregates.Aggregates.__init__, "__defaults__", (1,))
    assert content(read(World(), log)) == plain
    own = [Recorded(one.position, one.subject, one.headers, one.body, one.stored_at, ours=False) for one in log]
    assert content(read(World(), own)) == plain
    assert content(read(World(), log[:-2])) != plain


def test_an_unknown_part_is_refused() -> None:
    import msgspec

    with pytest.raises(ValueError):
        Restored(World()).add(msgspec.msgpack.encode(("other", [])))
