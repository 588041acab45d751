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


def test_events_of_others_are_counted_once() -> None:
    known = Frontier()
    known.add_own([at(1)])
    known.add_read([at(1), at(2, TAG)])
    known.add_read([at(2, TAG)])
    with known.sending([VM.subject]):
        known.add_read([at(3), at(4, TAG)])
    assert known.others == 2
    known.add_read([at(5)])
    assert known.others == 3


def test_a_reader_takes_own_events_up_to_a_gap() -> None:
    known = Frontier()
    mine = [at(1), at(2), at(4)]
    known.add_own(mine[:2])
    assert (known.following(0), known.following(1), known.lacks(0)) == (mine[:2], mine[1:2], False)
    known.add_own(mine[2:])
    assert known.following(2) == []
    assert known.lacks(2), "the third is of somebody else"
    known.add_read([at(3)])
    assert not known.following(2)
    assert known.lacks(2), "it is known, but not to the reader"
    assert (known.following(3), known.lacks(3), known.lacks(4)) == (mine[2:], False, False)
    known.urge()
    assert (known.lacks(4), known.lacks(4)) == (True, False)
