"""The key of a VM is created while its placement is stored: the read models and the VM's document need it next."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.placement import Policy
from domain.vm import VmScheduled, VmUnschedulable
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, Tip
from eventstore.vault.vault import VaultUnavailable
from handlers.managers import placement
from handlers.managers.placement import Placer
from handlers.world.turns import Turns
from handlers.world.world import World

AT = datetime(2026, 1, 1, tzinfo=UTC)


class Keys:
    """A vault, and a log: what was done in which order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.stored = asyncio.Event()

    async def prepare(self, vm: str) -> None:
        self.done.append(f"key {vm}")
        if vm == "broken":
            raise VaultUnavailable("away")

    async def append(self, changes: list[Change], _: object) -> list[Any]:
        self.done.append("append begins")
        await self.stored.wait()
        self.done.append("append ends")
        return []


def scheduled(vm: str) -> Change:
    return Change(Tip(Ref("p", "vm", vm)), [VmScheduled(vm=vm, at=AT, node="n1", epoch=1, deadline=AT, considered=())])


async def test_keys_are_created_while_the_placement_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: Any = Keys()
    waits = Change(Tip(Ref("p", "vm", "waits")), [VmUnschedulable(vm="waits", at=AT, considered=())])
    changes = [scheduled("broken"), scheduled("placed"), waits]
    monkeypatch.setattr(placement, "decisions", lambda *_: changes)
    placing = asyncio.create_task(Placer(keys, World(), Policy(), Turns(lambda: 0), keys)._place([]))
    while "key placed" not in keys.done:
        await asyncio.sleep(0.001)
    keys.stored.set()
    await placing

    before = keys.done[: keys.done.index("append ends")]
    assert {"append begins", "key broken", "key placed"} == set(before)
