"""The log of a console: over the bus from the node's own file, to HTTP and to the command line."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cli.commands.console import harmless
from domain.contract import Power
from node_daemon.asks.answers import PIECE, Answers
from node_daemon.storage.disks import Disks
from runtime.tasks.tasks import end
from tests.gateway.platform import VMS, Platform
from tests.waiting import eventually

NO_HYPERVISOR: Any = None  # nothing here is asked of it


@pytest.fixture
async def disks(api: Platform, tmp_path: Path) -> AsyncIterator[Disks]:
    """The files of host-1, which answers for them."""
    disks = Disks(tmp_path)
    serving = asyncio.create_task(Answers(api.side.nc, "host-1", disks, NO_HYPERVISOR).serve())
    yield disks
    await end([serving])


async def refused(api: Platform, vm: str, query: str = "") -> tuple[int, str]:
    answer = await api.http.get(f"{VMS}/{vm}/console-log{query}")
    return answer.status_code, answer.json()["code"]


async def test_its_end_as_text(api: Platform, disks: Disks) -> None:
    vm = (await api.running())["vm"]["id"]
    said = bytes(range(256)) * 4096  # more than a message may carry
    disks.console(vm).write_bytes(said)
    answer = await api.http.get(f"{VMS}/{vm}/console-log?bytes={len(said) + 1}")
    assert (answer.status_code, answer.content) == (200, said)
    assert len(said) > 3 * PIECE
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["nebula-more"] == "false"
    assert (await api.http.get(f"{VMS}/{vm}/console-log?bytes=7")).content == said[-7:]
    assert (await api.http.get(f"{VMS}/{vm}/console-log")).content == said[-65536:]


async def test_what_follows_on_a_cursor_is_waited_for(api: Platform, disks: Disks) -> None:
    vm = (await api.running())["vm"]["id"]
    disks.console(vm).write_bytes(b"login: ")
    first = await api.http.get(f"{VMS}/{vm}/console-log")
    cursor = first.headers["nebula-cursor"]
    nothing = await api.http.get(f"{VMS}/{vm}/console-log?cursor={cursor}&wait=0.1s")
    assert (nothing.content, nothing.headers["nebula-cursor"]) == (b"", cursor)
    coming = asyncio.create_task(api.http.get(f"{VMS}/{vm}/console-log?cursor={cursor}&wait=30s"))
    await asyncio.sleep(0.3)
    with disks.console(vm).open("ab") as file:
        file.write(b"root\r\n")
    assert (await coming).content == b"root\r\n"


async def test_it_can_be_read_while_the_vm_is_off(api: Platform, disks: Disks) -> None:
    vm = (await api.running())["vm"]["id"]
    disks.console(vm).write_bytes(b"reboot: Power down\r\n")
    await api.call("POST", f"{VMS}/{vm}/stop", {"force": True})
    assert (await api.http.get(f"{VMS}/{vm}/console-log")).content.endswith(b"Power down\r\n")


async def test_why_there_is_none(api: Platform, disks: Disks) -> None:
    unplaced = (await api.create(region="elsewhere"))["vm"]["id"]
    assert await refused(api, unplaced) == (409, "vm_not_placed")
    vm = (await api.running())["vm"]["id"]
    assert await refused(api, vm) == (404, "no_console_log")
    assert (await refused(api, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"))[0] == 404
    for query in ("?bytes=0", "?bytes=8388609", "?bytes=x", "?cursor=1", "?cursor=1-x", "?wait=61", "?tail=1"):
        answer = await api.http.get(f"{VMS}/{vm}/console-log{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter"), query
        assert answer.json()["errors"][0]["field"] == query[1:].split("=")[0]


async def test_a_node_that_is_away_is_named(api: Platform) -> None:
    vm = (await api.running())["vm"]["id"]
    answer = await api.http.get(f"{VMS}/{vm}/console-log")
    assert (answer.status_code, answer.json()["code"]) == (503, "node_unavailable")
    assert "host-1" in answer.json()["detail"]
    assert answer.headers["retry-after"] == "1"


async def test_a_node_makes_sure_of_what_it_is_asked(api: Platform, disks: Disks) -> None:
    for bad in (b"", b"{}", b'{"vm": "../../../etc/passwd"}', b'{"vm": 1}'):
        reply = await api.side.nc.request("nebula.nodes.host-1.asks.console-log", bad)
        assert b'"invalid_request"' in reply.data, bad
    reply = await api.side.nc.request("nebula.nodes.host-1.asks.sing", b"{}")
    assert b'"unknown_question"' in reply.data


async def nebula(api: Platform, *arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    env = {**os.environ, "NEBULA_URL": api.url}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", *arguments, env=env, stdout=pipe, stderr=pipe
    )


async def test_the_command_follows(api: Platform, disks: Disks) -> None:
    vm = (await api.running(name="talks"))["vm"]["id"]
    disks.console(vm).write_bytes(b"\x1b[2Jone\n")
    once = await nebula(api, "vm", "console-log", "talks", "--bytes", "4")
    assert (await once.communicate())[0] == b"one\n"

    following = await nebula(api, "vm", "console-log", vm, "--follow")
    assert following.stdout
    assert await following.stdout.readexactly(8) == b"\x1b[2Jone\n"
    with disks.console(vm).open("ab") as file:
        file.write(b"two\n")
    assert await following.stdout.readexactly(4) == b"two\n"

    await api.call("DELETE", f"{VMS}/{vm}")
    await eventually(lambda: wanted_absent(api, vm), "to be removed")
    disks.remove(vm)
    await api.report(vm, Power.ABSENT)
    assert await following.wait() == 0, "deleted: that was all"


async def wanted_absent(api: Platform, vm: str) -> Any:
    wanted = await api.side.wanted(vm)
    return wanted is not None and wanted.desired == "absent"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain\tüber 雲\r\n", "plain\tüber 雲\r\n"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        ("\x1b]0;title\x07\x1b[6n\x9b6n\x00\x7f", "]0;title[6n6n"),
    ],
)
def test_a_terminal_gets_what_is_harmless(said: str, shown: str) -> None:
    assert harmless(said) == shown
