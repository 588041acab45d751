"""How far the log is known without a gap."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from eventstore.log.envelope import Recorded, Ref
from eventstore.log.frontier import Frontier

TAG, VM = Ref("system", "tag", "web"), Ref("p", "vm", "v")


def at(position: int, ref: Ref = VM) -> Recorded:
    return Recorded(position, ref.subject, {}, b"", datetime.now(UTC))


def test_own_events_close_gaps() -> None:
    known = Frontier(["tag"])
    known.stored([at(1), at(2)])
    assert known.position == 2
    known.stored([at(6), at(7)])
    known.stored([at(4)])
    assert known.position == 2, "3 and 5 may be anything"
    known.stored([at(3, TAG)])
    assert known.position == 4
    known.heard([at(3, TAG), at(5)])
    assert known.position == 7
    known.heard([at(6)])
    assert known.position == 7
    assert (known.newest(TAG), known.newest(VM)) == (3, 0)


def test_own_events_are_recognized_when_they_come_with_the_log() -> None:
    known = Frontier()
    late, mine, other, last = at(1), at(2), at(3), at(4)
    assert known.handed([late]) == [late]
    known.stored([late, mine, other])
    changed = replace(other, body=b"{}")
    first, second = known.handed([replace(mine, stored_at=late.stored_at), changed])
    assert first is mine
    assert second is changed, "not what was appended"
    known.stored([last])
    [told] = known.handed([at(4)])
    assert told is last
    assert not known._own, "none is kept: one that came with the log before it was known to be stored neither"


async def test_whoever_waits_goes_on_when_it_is_known() -> None:
    known = Frontier()
    await known.reached(0)
    waiting = [asyncio.create_task(known.reached(n)) for n in (3, 2, 5)]
    await asyncio.sleep(0)
    assert known.awaited == 3
    known.stored([at(3)])
    known.heard([at(1), at(2)])
    await asyncio.gather(*waiting[:2])
    assert known.awaited == 1
    waiting[2].cancel()
    await asyncio.gather(waiting[2], return_exceptions=True)
    known.heard([at(9)])
    assert known.awaited == 0
