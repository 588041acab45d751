"""Aggregates that are packed are the same as those that are not."""

from itertools import zip_longest
from typing import Any

import pytest

from domain.vm import VISIBLE, Phase
from eventstore.log.envelope import Ref
from eventstore.log.store import Loaded, Tip
from handlers.world import aggregates
from handlers.world.aggregates import Aggregates, packed, unpacked
from handlers.world.codec import CODEC
from handlers.world.world import World
from tests.history.stories import EVOLVE
from tests.history.test_history import STORIES, decoded, lines

Steps = list[Loaded[Any]]


def lives() -> list[Steps]:
    """For each history the aggregate after each of its events. Each has an id of its own."""
    found = []
    for number, path in enumerate(STORIES):
        kind = path.name.split("-")[0]
        if kind not in Aggregates().of_kind:
            continue
        state, steps, ref = None, Steps(), Ref("p", kind, f"{number:032x}")
        for version, (headers, body) in enumerate(lines(path), 1):
            state = EVOLVE[kind](state, decoded(headers, body))
            steps.append(Loaded(state, Tip(ref, version, 100 * version + number, f"{version:064x}")))
        found.append(steps)
    return found


@pytest.mark.parametrize("most", [0, 1, 3])
def test_what_is_packed_is_the_same(most: int) -> None:
    few, many = Aggregates(most), Aggregates(10**9)
    for steps in zip_longest(*lives()):  # all histories side by side
        for loaded in filter(None, steps):
            assert few.put(loaded) == many.put(loaded) == loaded.tip.ref
            assert few.get(loaded.tip.ref) == loaded
            assert few.tip(loaded.tip.ref) == (loaded.tip.version, loaded.tip.position)
    assert len(few._packed) > 5
    assert {ref: few.get(ref) for ref, *_ in few.rows()} == {ref: many.get(ref) for ref, *_ in many.rows()}
    for kind in few.of_kind:
        assert list(few.states(kind)) == list(many.states(kind)) and few.ids(kind) == many.ids(kind)
    for ref in [ref for ref, *_ in many.rows()][::2]:
        few.remove(ref)
        assert few.get(ref) is None and few.tip(ref) == (0, 0) and ref.id not in few.ids(ref.kind)


def test_what_does_not_change_is_packed_and_what_changes_is_not() -> None:
    kept = Aggregates(1)
    first, second = [life[:2] for life in lives() if life[0].tip.ref.kind == "vm"][:2]
    kept.put(first[0])
    kept.put(second[0])
    assert set(kept._packed) == {first[0].tip.ref} and set(kept._recent) == {second[0].tip.ref}
    kept.put(first[1])
    assert set(kept._packed) == {second[0].tip.ref} and set(kept._recent) == {first[0].tip.ref}


def test_nothing_is_left_of_deleted_vms_but_their_ids() -> None:
    world = World()
    for life in lives():
        if life[0].tip.ref.kind == "vm":
            before = None
            for loaded in life:
                world._keep(loaded.tip.ref, loaded, before)
                before = loaded.state
    deleted = {vm.id for vm in world.vms() if vm.phase is Phase.DELETED}
    assert not deleted and world.deleted_vms
    for life in lives():
        last = life[-1]
        if last.tip.ref.id in world.deleted_vms:
            ref = last.tip.ref
            assert world.vm(ref.id) is None and world.vm_version(ref.id) == 0
            assert ref not in {each for each, *_ in world.aggregates.rows()}
            assert not any(ref.id in on_node for on_node in world.vm_index.visible.values())


def test_the_vms_of_a_node_that_become_lost_with_it_are_known() -> None:
    world = World()
    for life in lives():
        before = None
        for loaded in life:
            ref = world._keep(loaded.tip.ref, loaded, before)
            before = loaded.state
            plain: dict[str, set[str]] = {}
            for found in map(world.vm, world.ids("vm")):
                if found is not None and found.state is not None and found.state.phase in VISIBLE:
                    plain.setdefault(found.state.node or "", set()).add(found.tip.ref.id)
            assert {node: set(world.visible_vms(node)) for node in world.vm_index.visible} == plain
            assert ref == loaded.tip.ref


def test_packed_states_take_less_than_half_of_their_bytes() -> None:
    states = [step for life in lives() if life[0].tip.ref.kind == "vm" for step in life[2:]]
    plain = sum(len(CODEC.pack([step.tip.digest, step.tip.time, step.state])) for step in states)
    kept = [packed(step) for step in states]
    assert [unpacked(step.tip.ref, each) for step, each in zip(states, kept, strict=True)] == states
    assert sum(map(len, kept)) < plain / 2
    assert kept == [packed(step) for step in states], "equal states have equal bytes"


def test_at_rest_few_are_kept_as_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregates, "AT_REST", 2)
    kept, every = Aggregates(), [life[0] for life in lives() if life[0].tip.ref.kind == "vm"][:6]
    for loaded in every:
        kept.put(loaded)
    assert kept.crowded and not kept._packed
    kept.tidy(1)
    assert list(kept._packed) == [every[0].tip.ref] and kept.crowded
    kept.tidy(100)
    assert list(kept._recent) == [loaded.tip.ref for loaded in every[-2:]] and not kept.crowded
    kept.tidy(100)
    assert [kept.get(loaded.tip.ref) for loaded in every] == every
