"""Our client writes and reads headers as nats-py does, only quicker."""

import asyncio

import pytest
from hypothesis import given, strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import BadHeaderError, TimeoutError as NatsTimeout
from nats.js.api import Header

from runtime.bus import headers
from runtime.bus.headers import NAME, Odd, header_block, parsed
from runtime.bus.quick_client import FEW, MOST_UNREAD, QuickClient
from tests.waiting import eventually

NAMES = st.text("abcXYZ-_.0189:\r é", min_size=0, max_size=6)
VALUES = st.text(st.sampled_from(" \t\r\n:;=aZ9é\u2003"), max_size=8)


def sent(client: Client, headers: dict[str, str] | None, *, subject: str = "a.b") -> bytes | str:
    """What goes to the server, or the name of the error."""
    commands: list[bytes] = []

    async def keep(cmd: bytes, priority: bool = False) -> None:
        commands.append(cmd)

    client._send_command = keep  # type: ignore[method-assign]
    try:
        asyncio.run(client._send_publish(subject, "inbox", b"body", 4, headers))
    except Exception as error:
        return type(error).__name__
    return b"".join(commands)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_what_is_sent_is_what_nats_py_sends(headers: dict[str, str]) -> None:
    assert sent(QuickClient(), headers) == sent(Client(), headers)


@pytest.mark.parametrize("name", list(Header))
def test_nats_pys_own_names_go_out_as_they_are(name: Header) -> None:
    """Else an expectation is none: the server ignores headers that it does not know."""
    assert sent(QuickClient(), {name: "0"}) == sent(Client(), {name: "0"})
    assert f"\r\n{name.value}: 0\r\n".encode() in (header_block({name: "0"}) or b"")


@pytest.mark.parametrize("headers", [None, {}, {"ce-id": "vm.1:1"}])
def test_a_message_without_subject_is_refused(headers: dict[str, str] | None) -> None:
    assert sent(QuickClient(), headers, subject="") == "BadSubjectError"


def test_plain_headers_are_encoded_at_once() -> None:
    assert header_block({"ce-id": "vm.1:1", "ce-actor": " user:me "}) == (
        b"NATS/1.0\r\nce-id: vm.1:1\r\nce-actor: user:me\r\n\r\n"
    )


@pytest.mark.parametrize("headers", [{"a": "1\r\nb: 2"}, {"a": "1\nb"}, {"a": "1\rb"}, {"a b": "1"}, {"": "1"}])
def test_what_is_not_plain_is_left_to_nats_py(headers: dict[str, str]) -> None:
    assert header_block(headers) is None


def test_a_name_that_nats_py_refuses_stays_refused() -> None:
    for _ in range(2):
        assert sent(QuickClient(), {"a:b": "1"}) == BadHeaderError.__name__


@given(st.dictionaries(st.text("abc-", min_size=1, max_size=4), st.text("xyz: ;", max_size=8), max_size=4))
def test_what_was_sent_is_read_back(headers: dict[str, str]) -> None:
    block = header_block(headers) if headers else None
    if block is not None:
        assert parsed(block) == {name: value.strip() for name, value in headers.items()}


LINES = st.lists(
    st.binary(max_size=12) | st.sampled_from([b"a: b", b"a:b", b"a : c", b" a: d", b"a: \xff", b"\xff: a"])
)


@given(st.sampled_from([b"NATS/1.0", b"NATS/1.0 404 No", b"NATS/1.0 \xff", b"", b"\xff"]), LINES)
def test_headers_are_read_as_nats_py_reads_them_and_never_fail(first: bytes, lines: list[bytes]) -> None:
    rest = b"\r\n".join(lines) + b"\r\n\r\n"
    theirs = Client._parse_header_lines(rest)
    ours = parsed(first + b"\r\n" + rest) or {}
    assert ours.items() >= {name: value for name, value in theirs.items() if NAME.fullmatch(name)}.items()
    assert set(ours) - set(theirs) <= {"Status", "Description"}


@pytest.mark.parametrize("lines", [b"a: b\r\na: c\r\n", b"a:  b\r\n", b"a: \xff\r\n", b"nothing\r\na: b\r\n"])
def test_headers_that_a_dictionary_does_not_tell_keep_their_bytes(lines: bytes) -> None:
    block = b"NATS/1.0\r\n" + lines + b"\r\n"
    found = parsed(block)
    assert isinstance(found, Odd)
    assert found.block == block


class Wire:
    """What was written, in the order of writing. `unread`: how much of it the server has not read."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unread = 0
        self._io_writer = self.transport = self

    def get_write_buffer_size(self) -> int:
        return self.unread

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, lines: list[bytes]) -> None:
        self.written.extend(lines)

    async def drain(self) -> None:
        """Nothing is left to write."""


def connected() -> tuple[QuickClient, Wire]:
    client, wire = QuickClient(), Wire()
    client._status = Client.CONNECTED
    client._transport = wire  # type: ignore[assignment]
    return client, wire


async def test_a_question_is_written_at_once() -> None:
    client, wire = connected()
    await client._send_publish("a", "inbox", b"x", 1, {"n": "1"})
    assert wire.written == [b"HPUB a inbox 18 19\r\nNATS/1.0\r\nn: 1\r\n\r\nx\r\n"]
    assert client._pending == []


async def test_a_question_without_headers_is_written_at_once() -> None:
    client, wire = connected()
    await client._send_publish("a", "inbox", b"x", 1, None)
    assert wire.written == [b"PUB a inbox 1\r\nx\r\n"]
    assert client._pending == []


async def test_one_of_many_questions_is_written_with_others() -> None:
    client, wire = connected()
    client._resp_map = {str(number): asyncio.Future() for number in range(FEW + 1)}
    await client._send_publish("a", "inbox", b"x", 1, None)
    assert wire.written == []
    await client._send_publish("a", "inbox", b"x", 1, {"n": "1"})
    assert [command[:4] for command in client._pending] == [b"PUB ", b"HPUB"]


@pytest.mark.parametrize("headers", [None, {"n": "1"}], ids=["plain", "with headers"])
async def test_what_nobody_answers_is_written_with_others(headers: dict[str, str] | None) -> None:
    client, wire = connected()
    await client._send_publish("a", "", b"x", 1, headers)
    assert wire.written == []
    assert len(client._pending) == 1


async def test_what_the_server_does_not_read_waits_in_the_limited_buffer() -> None:
    client, wire = connected()
    wire.unread = MOST_UNREAD
    await client._send_publish("a", "inbox", b"x", 1, None)
    assert wire.written == []
    assert client._pending == [b"PUB a inbox 1\r\nx\r\n"]


async def asking() -> tuple[QuickClient, asyncio.Task[Msg], str]:
    """A question that was written, and the id of its answer."""
    client, wire = connected()
    client._resp_sub_prefix = bytearray(b"_INBOX.me.")
    asked = asyncio.create_task(client.request("a", b"x", timeout=30, headers={"n": "1"}))
    while not wire.written:
        await asyncio.sleep(0)
    (token,) = client._resp_map
    assert wire.written[0].split()[:3] == [b"HPUB", b"a", f"_INBOX.me.{token}".encode()]
    return client, asked, token


async def test_a_question_gets_its_answer() -> None:
    client, asked, token = await asking()
    client._resp_map[token].set_result(Msg(client, data=b"y"))
    assert (await asked).data == b"y"
    assert client._resp_map == {}


async def test_a_question_that_nobody_waits_for_is_forgotten() -> None:
    client, asked, _ = await asking()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert client._resp_map == {}


async def test_a_question_without_an_answer_ends_in_time() -> None:
    client, _ = connected()
    client._resp_sub_prefix = bytearray(b"_INBOX.me.")
    with pytest.raises(NatsTimeout):
        await client.request("a", b"x", timeout=0, headers={"n": "1"})
    assert client._resp_map == {}


async def test_a_flush_does_not_overtake_what_waits_to_be_written() -> None:
    client, wire = connected()
    wire.unread = MOST_UNREAD
    await client._send_publish("a", "", b"x", 1, {"n": "1"})
    client._flush_queue = asyncio.Queue()
    await client._send_ping()
    assert [command.split()[0] for command in wire.written] == [b"HPUB", b"PING"]
    assert client._pending == []


async def test_a_question_does_not_overtake_what_waits_to_be_written() -> None:
    client, wire = connected()
    wire.unread = MOST_UNREAD
    await client._send_publish("a", "", b"x", 1, {"n": "1"})
    wire.unread = 0
    await client._send_publish("b", "inbox", b"x", 1, {"n": "2"})
    assert wire.written == []
    assert [command.split()[1] for command in client._pending] == [b"a", b"b"]


async def test_a_question_to_a_lost_server_waits_for_it() -> None:
    client, wire = connected()
    client._status = Client.RECONNECTING
    await client._send_publish("a", "inbox", b"x", 1, {"n": "1"})
    assert wire.written == []
    assert len(client._pending) == 1


async def test_an_answer_needs_no_task() -> None:
    client, _ = connected()
    client._flush_queue = asyncio.Queue()
    client._flusher_task = asyncio.create_task(asyncio.sleep(3600))
    asked = asyncio.create_task(client.request("a", b"x", timeout=3600))
    await eventually(lambda: client._resp_map, "it asks")
    (token,) = client._resp_map
    (sid, answers), *_ = client._subs.items()
    assert client._resp_sub_prefix is not None
    await client._process_msg(sid, bytes(client._resp_sub_prefix) + token.encode(), b"", b"y", b"")
    assert client._resp_map[token].done()
    assert (await asked).data == b"y"
    assert answers._pending_queue.empty()
    for task in (client._flusher_task, answers._wait_for_msgs_task):
        if task is not None:
            task.cancel()


PARTS = st.lists(
    st.tuples(st.binary(min_size=0, max_size=4), st.sampled_from([b": ", b":", b"  ", b" :"]), st.binary(max_size=6)),
    max_size=4,
)


@given(PARTS | st.just([(b"ce-id", b": ", b"a:b"), (b"ce-id", b": ", b"c")]), st.sampled_from([b"\r\n", b"\n", b"\r"]))
def test_the_quickest_way_reads_what_the_next_one_reads(lines: list[tuple[bytes, bytes, bytes]], end: bytes) -> None:
    block = b"".join(b"".join(line) + end for line in lines) + b"\r\n"
    headers._usual_ones.clear()
    first = parsed(b"NATS/1.0\r\n" + block)
    found = headers._usual(block)
    assert found is None or found == headers._plain(block) == first


@pytest.fixture
def forgotten() -> None:
    headers._usual_ones.clear()


@pytest.mark.usefixtures("forgotten")
def test_headers_of_events_go_the_quickest_way() -> None:
    event = {"ce-id": "vm.1:1", "ce-time": "2026-01-01T00:00:00+00:00"}
    other = {"ce-id": "vm.1:2", "ce-time": "2026-01-02T00:00:00+00:00"}
    assert parsed(header_block(event) or b"") == event
    assert headers._usual((header_block(other) or b"")[10:]) == other
    for lines in (
        b"ce-id: 1 2\r\nce-time: 3\r\n\r\n",
        b"ce-id: 1\r\nce-id: 2\r\n\r\n",
        b"ce-time: 1\r\nce-id: 2\r\n\r\n",
        b"ce-id: 1\r\nce-time: \r\n\r\n",
        b"ce-id: 1\r\nce-time:2\r\n\r\n",
        b"ce-id: \xff\r\nce-time: 2\r\n\r\n",
        b"ce-id: 1\nce-time: 2\n\r\n",
        b"ce-id: 1\r\nce-time: 2\r\n\r\n\r\n",
        b"ce-id: 1\r\nce-time: 2\r\n",
        b"\r\n",
        b"",
    ):
        assert headers._usual(lines) is None, lines


@pytest.mark.usefixtures("forgotten")
def test_few_sets_of_names_are_kept_whoever_writes_them() -> None:
    for number in range(300):
        lines = b"".join(b"a%d-%d: 1\r\n" % (number, n) for n in range(number % 20))
        parsed(b"NATS/1.0\r\n" + lines + b"\r\n")
    parsed(b"NATS/1.0\r\n" + b"x" * 5000 + b": 1\r\n\r\n")
    kept = [names for alike in headers._usual_ones.values() for names, _ in alike]
    assert 10 < len(kept) <= 64
    assert all(sum(map(len, names)) < 2000 for names in kept)
    assert parsed(b"NATS/1.0\r\nnew: 1\r\nother: 2\r\n\r\n") == {"new": "1", "other": "2"}
