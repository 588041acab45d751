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
    known.add_own([at(1), at(2)])
    assert known.position == 2
    known.add_own([at(6), at(7)])
    known.add_own([at(4)])
    assert known.position == 2, "3 and 5 may be anything"
    known.add_own([at(3, TAG)])
    assert known.position == 4
    known.add_read([at(3, TAG), at(5)])
    assert known.position == 7
    known.add_read([at(6)])
    assert known.position == 7
    assert (known.newest(TAG), known.newest(VM)) == (3, 0)


def test_own_events_are_recognized_when_they_come_with_the_log() -> None:
    known = Frontier()
    late, mine, other, last = at(1), at(2), at(3), at(4)
    assert known.hand_on([late]) == [late]
    known.add_own([late, mine, other])
    changed = replace(other, body=b"{}")
    first, second = known.hand_on([replace(mine, stored_at=late.stored_at), changed])
    assert first is mine
    assert second is changed, "not what was appended"
    known.add_own([last])
    [told] = known.hand_on([at(4)])
    assert told is last
    assert not known._own, "none is kept: one that came with the log before it was known to be stored neither"


async def test_whoever_waits_goes_on_when_it_is_known() -> None:
    known = Frontier()
    await known.wait_for(0)
    waiting = [asyncio.create_task(known.wait_for(n)) for n in (3, 2, 5)]
    await asyncio.sleep(0)
    assert known.awaited == 3
    known.add_own([at(3)])
    known.add_read([at(1), at(2)])
    await asyncio.gather(*waiting[:2])
    assert known.awaited == 1
    waiting[2].cancel()
    await asyncio.gather(waiting[2], return_exceptions=True)
    known.add_read([at(9)])
    assert known.awaited == 0
