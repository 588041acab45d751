"""At the serial console of a real guest: through the gateway, over the bus, from its node, and back."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from runtime.bus import pipe
from runtime.local.libvirtd import Libvirt
from tests.gateway.echo_guest import Guest, a_guest, speaks, until
from tests.gateway.platform import VMS, Platform, served
from tests.waiting import eventually

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
async def guest(api: Platform, servers_home: Path, libvirt_qemu: Libvirt) -> AsyncIterator[Guest]:
    async with a_guest(api, servers_home) as guest:
        yield guest


async def refused(attempt: Any) -> tuple[int, str, dict[str, Any]]:
    """How a connection is refused: status, code, the problem itself."""
    with pytest.raises(InvalidStatus) as caught:
        async with attempt:
            pass
    problem = json.loads(caught.value.response.body or b"{}")
    assert caught.value.response.headers["content-type"] == "application/problem+json"
    return caught.value.response.status_code, problem["code"], problem


async def ended(socket: Any) -> tuple[int, str]:
    """How a connection is ended by the other side."""
    async with asyncio.timeout(30):
        with pytest.raises(ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code, socket.close_reason


async def test_both_ways_byte_for_byte(guest: Guest) -> None:
    async with guest.connect() as socket:
        assert socket.subprotocol == "binary"
        await speaks(socket)
        await socket.send(b"\x00\xff\x1b[A*")
        assert (await until(socket, b"*")).endswith(b"\x00\xff\x1b[A*")
        await socket.send("as text, which some terminals send: ü*")
        assert "WHICH SOME TERMINALS SEND: ü*".encode() in await until(socket, b"*")


async def test_for_one_at_a_time_unless_forced(guest: Guest) -> None:
    async with guest.connect() as first:
        await speaks(first)
        status, code, problem = await refused(guest.connect())
        assert (status, code) == (409, "console_in_use")
        assert "local has this console" in problem["detail"]
        async with guest.connect(query="?force=true") as second:
            assert await ended(first) == (1000, "local has taken over")
            await speaks(second)
    async with guest.connect() as third:
        await speaks(third)


async def test_what_is_refused_before_it_begins(guest: Guest) -> None:
    api = guest.api
    assert (await refused(guest.connect(query="?force=yes")))[2]["errors"][0]["field"] == "force"
    assert (await refused(guest.connect(query="?sudo=true")))[:2] == (400, "invalid_parameter")
    placed = (await api.create(name="off"))["vm"]["id"]

    async def has_a_node() -> bool:
        return bool((await api.get(f"{VMS}/{placed}"))["node"])

    await eventually(has_a_node, "placed")
    url = f"ws{api.url.removeprefix('http')}{VMS}"
    for vm, status, code in (
        (placed, 409, "wrong_phase"),
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", 404, "vm_not_found"),
        ("x", 404, "vm_not_found"),
    ):
        assert (await refused(connect(f"{url}/{vm}/console", proxy=None)))[:2] == (status, code)
    for nothing in ("/console/", "/feed", "/consol"):
        assert (await refused(connect(f"{url}/{guest.vm}{nothing}", proxy=None)))[:2] == (404, "no_such_route")
    plain = await api.http.get(f"{VMS}/{guest.vm}/console")
    assert (plain.status_code, plain.json()["code"]) == (426, "upgrade_required")
    assert "force" in json.dumps((await api.get("/v1/openapi.json"))["paths"][f"{VMS_PATH}/console"])


VMS_PATH = "/v1/projects/{project}/vms/{vm}"


def bearer(token: bytes) -> Subprotocol:
    return Subprotocol(f"bearer.{base64.urlsafe_b64encode(token).decode().rstrip('=')}")


async def test_tokens_by_header_or_as_a_subprotocol(guest: Guest, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"alice {hashlib.sha256(b'secret').hexdigest()}\n")
    binary, right, wrong = Subprotocol("binary"), bearer(b"secret"), bearer(b"other")
    async with served(guest.api.side, guest.api.dsn, tokens_file=file) as (_, url):
        there = f"ws{url.removeprefix('http')}{VMS}/{guest.vm}/console"
        header = {"Authorization": "Bearer secret"}
        async with connect(there, additional_headers=header, proxy=None) as socket:
            assert socket.subprotocol is None
            await speaks(socket)
        async with connect(there, subprotocols=[binary, right], proxy=None) as socket:
            assert socket.subprotocol == "binary", "never the token"
            await speaks(socket)
            taken = await refused(connect(there, additional_headers=header, proxy=None))
            assert "alice" in taken[2]["detail"]
        for offered in ([], [binary], [binary, wrong], [Subprotocol("bearer.*")]):
            attempt = connect(there, subprotocols=offered or None, proxy=None)
            assert (await refused(attempt))[:2] == (401, "unauthorized"), offered


async def test_web_pages_of_elsewhere_are_kept_out(guest: Guest) -> None:
    assert (await refused(guest.connect(origin="http://evil.example")))[:2] == (403, "foreign_origin")


async def test_a_node_that_stops_says_so_and_one_that_is_away_is_named(guest: Guest) -> None:
    async with guest.connect() as socket:
        await speaks(socket)
        await guest.restart_node()
        code, reason = await ended(socket)
        assert (code, "the node daemon stops" in reason) == (1000, True)
    async with guest.connect() as socket:
        await speaks(socket)
    guest.node.cancel()
    await asyncio.wait({guest.node})
    assert (await refused(guest.connect()))[:2] == (503, "node_unavailable")
    await guest.restart_node()


async def test_ends_that_vanish_are_noticed_by_the_others(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that was killed must not keep the console; nor a node leave a terminal hanging."""
    monkeypatch.setattr(pipe, "SILENCE", 0.6)
    monkeypatch.setattr(pipe, "BEAT", 0.1)
    async with guest.connect() as socket:
        await speaks(socket)
        monkeypatch.setattr(pipe.Pipe, "_publish", silent(pipe.Pipe._publish))
        assert await ended(socket) == (1000, pipe.NOT_ANSWERING)
    await eventually(lambda: not guest.answers._sessions._open, "the node lets go as well", 5)
    monkeypatch.undo()
    async with guest.connect() as socket:
        await speaks(socket)


def silent(real: Callable[..., Any]) -> Callable[..., Any]:
    async def say(*_: object) -> None:
        return None

    return say


async def test_a_gateway_that_stops_lets_go(guest: Guest) -> None:
    async with served(guest.api.side, guest.api.dsn) as (gateway, url):
        there = f"ws{url.removeprefix('http')}{VMS}/{guest.vm}/console"
        async with connect(there, proxy=None) as socket:
            await speaks(socket)
            gateway.stop.set()
            code, _ = await ended(socket)
            assert code == 1012
    async with guest.connect() as socket:
        await speaks(socket)


async def test_feeds_and_commands_go_on_beside_it(guest: Guest) -> None:
    async with guest.connect() as socket, httpx.AsyncClient(base_url=guest.api.url) as http:
        await speaks(socket)
        assert (await http.get(f"{VMS}/{guest.vm}")).status_code == 200


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────────


class AtTerminal:
    """`nebula vm console` with a terminal of its own."""

    def __init__(self, guest: Guest, *arguments: str) -> None:
        self.keys, terminal = pty.openpty()
        self.before = termios.tcgetattr(self.keys)
        command = [sys.executable, "-m", "cli.main", "vm", "console", guest.vm, *arguments]
        env = {**os.environ, "NEBULA_URL": guest.api.url}
        self.process = subprocess.Popen(command, env=env, stdin=terminal, stdout=terminal, stderr=terminal)
        os.close(terminal)
        os.set_blocking(self.keys, False)
        self.screen = b""

    def type(self, keys: bytes) -> None:
        os.write(self.keys, keys)

    async def shows(self, expected: bytes, *, typing: bytes = b"") -> None:
        def seen() -> bool:
            with contextlib.suppress(OSError):
                self.screen += os.read(self.keys, 65536)
            if typing and expected not in self.screen:
                self.type(typing)
            return expected in self.screen

        try:
            await eventually(seen, expected.decode(), 30)
        except AssertionError as error:
            raise AssertionError(f"{error}; on the screen: {self.screen!r}") from None

    async def ends(self) -> int:
        status: int = await asyncio.to_thread(self.process.wait, 30)
        assert termios.tcgetattr(self.keys) == self.before, "the terminal is as it was"
        return status


async def test_the_command_with_a_terminal(guest: Guest) -> None:
    terminal = AtTerminal(guest)
    await terminal.shows(b"Ctrl-] ends")
    await terminal.shows(b"HELLO", typing=b"hello")
    terminal.type(b"\x03\x1a not for us*")
    await terminal.shows(b"\x03\x1a NOT FOR US*")
    second = AtTerminal(guest)
    await second.shows(b"has this console")
    assert await second.ends() == 1
    terminal.type(b"\x1d")
    await terminal.shows(b"session ended")
    assert await terminal.ends() == 0


async def test_the_terminal_is_itself_again_whatever_happens(guest: Guest) -> None:
    killed = AtTerminal(guest)
    await killed.shows(b"HELLO", typing=b"hello")
    killed.process.send_signal(signal.SIGTERM)
    assert await killed.ends() == 128 + signal.SIGTERM
    taken = AtTerminal(guest, "--force")
    await taken.shows(b"HELLO", typing=b"hello")
    other = AtTerminal(guest, "--force")
    await taken.shows(b"has taken over")
    assert await taken.ends() == 0
    other.type(b"\x1d")
    assert await other.ends() == 0


async def test_the_command_in_a_pipe(guest: Guest) -> None:
    env = {**os.environ, "NEBULA_URL": guest.api.url}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "vm", "console", guest.vm, env=env, stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"piped*")
    async with asyncio.timeout(30):
        assert (await process.stdout.readuntil(b"*")).endswith(b"PIPED*")
    process.stdin.close()
    assert await process.wait() == 0


async def test_it_ends_with_the_guest(guest: Guest) -> None:
    """The last: the guest is off afterwards."""
    async with guest.connect() as socket:
        await speaks(socket)
        await guest.hypervisor.destroy(guest.vm)
        code, reason = await ended(socket)
        assert (code, "off" in reason) == (1000, True)
    status, code_, problem = await refused(guest.connect())
    assert (status, code_) == (409, "no_console"), problem
