"""Pages of the whole log: the server is asked in the way that costs the same however many resources there are."""

from pathlib import Path

import pytest
from nats.js.api import StreamConfig

from runtime import subjects
from runtime.bus import reading
from runtime.bus.inbox import Inbox
from runtime.bus.quick_client import QuickClient
from runtime.local.servers import start_nats

ONE_VM = subjects.event("p", "vm", "a")


@pytest.mark.parametrize(
    ("stream", "filter_", "asked"),
    [
        (subjects.EVENTS, subjects.events(), ">"),
        (subjects.EVENTS, subjects.events("p"), subjects.events("p")),
        (subjects.EVENTS, ONE_VM, ONE_VM),
        (subjects.WANTED, subjects.events(), subjects.events()),
    ],
)
def test_only_the_filter_of_the_whole_log_is_left_out(stream: str, filter_: str, asked: str) -> None:
    assert reading.asked(stream, filter_) == asked


async def test_a_page_goes_past_messages_that_are_missing(tmp_path: Path) -> None:
    """The first one of a page, and one within it."""
    server = await start_nats(tmp_path)
    nc = QuickClient()
    await nc.connect(server.url)
    try:
        js = nc.jetstream()
        await js.add_stream(StreamConfig(name=subjects.EVENTS, subjects=[subjects.events()], allow_direct=True))
        for _ in range(6):
            await js.publish(ONE_VM, b"x")
        for position in (2, 4):
            await js.delete_msg(subjects.EVENTS, position)
        async with Inbox(nc) as inbox:
            page = await reading.page(
                nc, inbox, subjects.EVENTS, 1, subjects.events(), lambda _, position, __: position
            )
        assert page == ([3, 5, 6], 6, False)
    finally:
        await nc.close()
        await server.stop()
