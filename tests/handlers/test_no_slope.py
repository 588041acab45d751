"""What a VM costs handlers does not grow with the VMs of its node: the same number of function calls for each."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from types import FrameType

import pytest

from bench.scale import lives
from bench.scale.lives import Append, Life
from domain.base import Event
from domain.candidates import Candidates
from domain.node import CapacityReserved
from domain.placement import Policy
from eventstore.log.envelope import Context, Recorded, Ref, seal
from eventstore.log.judge import Tip
from handlers.managers.placement import decisions
from handlers.nodes.known import Known
from handlers.world.world import World

#: VMs that are placed together, and nodes.
TOGETHER, NODES = 16, 2
#: VMs before the first and before the second measure.
FEW, MANY = 64, 1600
#: A larger tree has a level more, and an event may be the first of its kind.
GROWTH = 1.05


class Handlers:
    """The world, placement, and what the log knows of each node, fed with the events of new VMs."""

    def __init__(self) -> None:
        self.world, self.candidates = World(), Candidates(Policy(vcpu_ratio=1e6))
        self.known = Known(self.world)
        self.vms = self.calls = 0
        self._tips: dict[Ref, Tip] = {}
        for append in lives.cloud(0):
            self.take(self.recorded(append))

    def recorded(self, append: Append) -> list[Recorded]:
        found = list[Recorded]()
        for event in append.events:
            tip = self._tips.get(append.ref) or Tip(append.ref)
            headers, body = seal(append.ref, tip.version + 1, tip.digest, event, append.context)
            position = self.world.position + len(found) + 1
            one = Recorded(position, append.ref.subject, dict(headers), body, datetime.now(UTC), ours=True)
            self._tips[append.ref] = tip.after(one)
            found.append(one)
        return found

    def take(self, events: Iterable[Recorded]) -> None:
        for recorded in events:
            assert self.world.take(recorded) is None
            self.world.position = recorded.position

    def create(self, count: int) -> None:
        """So many more VMs: requested, placed, and started."""
        for _ in range(count // TOGETHER):
            new = [Life(self.vms + number, 0) for number in range(TOGETHER)]
            self.vms += TOGETHER
            self._each(life.requested() for life in new)
            ids = [life.id for life in new]
            self.counted(partial(decisions, ids, self.world, self.candidates))
            promises, scheduled = defaultdict[str, list[Event]](list), list[Append]()
            for life in new:
                event, promise = life.scheduled()
                assert isinstance(promise, CapacityReserved)
                promises[life.node].append(promise)
                scheduled.append(Append(life.ref, [event], Context(actor="system:placement")))
            of_nodes = [Append(Ref("system", "node", node), of, Context(actor="p")) for node, of in promises.items()]
            self._each([*of_nodes, *scheduled])
            self._each(step() for life in new for step in (life.preparing, life.started))
            for id_ in ids:
                self.counted(partial(self.known._note, id_))

    def _each(self, appends: Iterable[Append]) -> None:
        for append in appends:
            self.counted(partial(self.take, self.recorded(append)))

    def counted(self, work: Callable[[], object]) -> None:
        """Do it, and count the calls of functions."""

        def count(_: FrameType, event: str, __: object) -> None:
            self.calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            work()
        finally:
            sys.setprofile(None)

    def calls_of(self, vms: int) -> float:
        """The calls for each of so many more VMs."""
        before = self.calls
        self.create(vms)
        return (self.calls - before) / vms


def test_a_vm_on_a_full_node_costs_what_it_costs_on_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lives, "nodes", lambda _: NODES)
    handlers = Handlers()
    handlers.create(FEW)
    first = handlers.calls_of(FEW)
    handlers.create(MANY)
    assert first > 200 and handlers.calls_of(FEW) <= first * GROWTH
    assert len(handlers.world.ids("vm")) == handlers.vms == MANY + 3 * FEW
