"""The set of the ids of deleted VMs is a set like any other."""

import random
import uuid

from hypothesis import given, strategies as st

from handlers.world.deleted import DeletedIds, in_order

#: Ids that are alike, so that parts of two of them together look like a third one; and others that are no UUIDs.
FEW = st.builds(
    lambda pairs: str(uuid.UUID(bytes=bytes([0, *pairs]))), st.lists(st.sampled_from([0, 1]), min_size=15, max_size=15)
)
IDS = st.one_of(FEW, FEW, st.uuids().map(str), st.uuids().map(lambda one: str(one).upper()), st.text(max_size=4))


@given(st.lists(IDS, max_size=60), st.lists(IDS, max_size=60))
def test_it_is_a_set(added: list[str], others: list[str]) -> None:
    ids, plain = DeletedIds(), set[str]()
    for each in added:
        ids.add(each)
        plain.add(each)
        assert len(ids) == len(plain)
    assert set(ids) == plain and all(each in ids for each in added)
    assert [each in ids for each in others] == [each in plain for each in others]
    assert set(others) & ids == set(others) & plain
    odd: list[object] = [None, b"", 1]
    assert not any(each in ids for each in odd)


@given(st.lists(IDS, max_size=60, unique=True))
def test_its_packed_form_depends_on_the_ids_alone(added: list[str]) -> None:
    ids, other, again = DeletedIds(), DeletedIds(), DeletedIds()
    for each in added:
        ids.add(each)
    for each in random.sample(added, len(added)):
        other.add(each)
    assert in_order(ids.copied()) == in_order(other.copied())
    again.restore(in_order(ids.copied()))
    assert set(again) == set(added) and len(again) == len(added)
