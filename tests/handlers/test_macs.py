"""No two VMs that are not gone have one MAC address, whatever ids people choose."""

import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from domain import mac, node, vm
from domain.base import replace
from domain.candidates import Candidates
from domain.node import RegisterNode
from domain.placement import Policy
from domain.vm import Vm, VmScheduled
from eventstore.log.envelope import Ref
from eventstore.log.store import Loaded, Tip
from handlers.managers import placement
from handlers.world.macs import Macs
from handlers.world.unused import UnusedPromises
from handlers.world.world import World
from tests.domain.lives import RUNNING, create, lived
from tests.domain.story import at
from tests.domain.test_node import info

MANY = 10_000


class Cloud:
    """As much of a world as placement looks at: a host with room for all, and the VMs that wait."""

    def __init__(self) -> None:
        big = info(vcpus=2**16, memory_mib=2**30, disk_gib=2**30)
        (registered,) = node.decide(None, RegisterNode(node="n1", at=at(), info=big))
        self.host = node.evolve(None, registered)
        self.found: dict[str, Vm] = {}
        self.macs = Macs()
        self.unused = UnusedPromises()
        self.candidates = Candidates(Policy(vcpu_ratio=64))
        self.references = SimpleNamespace()

    def nodes(self) -> list[Any]:
        return [self.host]

    def vm(self, id_: str) -> Loaded[Vm]:
        return Loaded(self.found[id_], Tip(Ref("p", "vm", id_)))

    def image(self, _: str) -> None:
        return None

    def get(self, ref: Ref) -> Loaded[Any]:
        return Loaded(self.host, Tip(ref))

    def asked(self, ids: list[str]) -> None:
        for id_ in ids:
            (event,) = vm.decide(None, create(vm=id_))
            made = vm.evolve(None, event)
            assert made is not None
            self.found[id_] = made

    def place(self, ids: list[str]) -> None:
        """One round of placement, taken in as the log tells it."""
        for change in placement.decisions(ids, cast(World, self), self.candidates):
            for event in change.events:
                if change.tip.ref.kind == "node":
                    self.host = node.evolve(self.host, event)
                else:
                    placed = vm.evolve(self.found[change.tip.ref.id], event)
                    assert placed is not None and isinstance(event, VmScheduled)
                    self.found[placed.id] = placed
                    self.macs.change(None, placed)


def ids(count: int) -> list[str]:
    return [str(uuid.UUID(int=number)) for number in range(count)]


def test_ten_thousand_vms_have_as_many_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Iterator[int] = iter(range(10**9))

    def often_the_same(_: int) -> int:
        return next(drawn) * 7919 % (2 * MANY)

    monkeypatch.setattr("handlers.managers.placement.secrets.randbelow", often_the_same)
    monkeypatch.setattr(placement, "drop_of", lambda *_: None)
    cloud, all_ = Cloud(), ids(MANY)
    cloud.asked(all_)
    for start in range(0, MANY, 500):
        cloud.place(all_[start : start + 500])
    assert len({mac.of(found) for found in cloud.found.values()}) == MANY
    assert len({mac.derived(id_) for id_ in all_}) < MANY, "ids alone would have made some twice"


def colliding() -> tuple[str, str]:
    """Two ids with one derived address."""
    seen: dict[str, str] = {}
    for number in range(10**6):
        id_ = str(uuid.UUID(int=number))
        other = seen.setdefault(mac.derived(id_), id_)
        if other != id_:
            return other, id_
    raise AssertionError("there are two among a few thousand")


def test_two_chosen_ids_of_one_derived_address_get_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "drop_of", lambda *_: None)
    cloud, pair = Cloud(), list(colliding())
    cloud.asked(pair)
    monkeypatch.setattr("handlers.managers.placement.secrets.randbelow", lambda _: int.from_bytes(b"same"[:3]))
    cloud.place(pair)
    one, other = (mac.of(cloud.found[id_]) for id_ in pair)
    assert one != other


def test_an_address_is_kept_for_life_and_given_again_after_it() -> None:
    macs = Macs()
    waiting = lived([create()])
    placed = replace(lived(RUNNING), mac="52:54:00:00:00:07")
    macs.change(None, waiting)
    assert not macs.taken(mac.derived(placed.id)), "without a node it has none"
    macs.change(waiting, placed)
    for _ in range(2):
        macs.change(placed, replace(placed, boots=9))
        assert macs.taken("52:54:00:00:00:07")
    macs.change(placed, None)
    assert not macs.taken("52:54:00:00:00:07")


def test_vms_from_before_keep_what_follows_from_their_ids() -> None:
    old = lived(RUNNING)
    assert mac.of(old) == mac.derived(old.id)
    macs, pair = Macs(), [replace(old, id=id_) for id_ in colliding()]
    for each in pair:
        macs.change(None, each)
    macs.change(pair[0], None)
    assert macs.taken(mac.of(pair[1])), "the other one has it still"
    macs.change(pair[1], None)
    assert not macs.taken(mac.of(pair[1]))


def test_an_address_that_is_none_is_in_use_like_any_other() -> None:
    macs, odd = Macs(), replace(lived(RUNNING), mac="none")
    macs.change(None, odd)
    assert macs.taken("none")


def test_all_of_them_can_be_taken() -> None:
    assert mac.free(mac.ADDRESSES - 1, lambda address: address == mac.formatted(mac.ADDRESSES - 1)) == mac.formatted(0)
