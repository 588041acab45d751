"""A network namespace for the browser.

Chromium ends all its requests (`ERR_NETWORK_CHANGED`) when an interface of its host comes or goes, and other tests make
and remove some at the same time. In a namespace of its own it sees none of them. It reaches the servers of the host by
a SOCKS proxy, whose socket is in the namespace and whose process is not.
"""

import asyncio
import ctypes
import itertools
import os
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path

CLONE_NEWNET = 0x40000000
#: A process may have several browsers, one after the other.
NUMBERS = itertools.count()
#: Answers of SOCKS version 5 (RFC 1928, section 6): connected, and refused.
CONNECTED, REFUSED = (b"\x05" + code + b"\x00\x01" + bytes(6) for code in (b"\x00", b"\x05"))


@asynccontextmanager
async def apart(program: str) -> AsyncIterator[tuple[str, list[str]]]:
    """The program to start instead, and its options. Without root: the same program, on the network of the host."""
    if os.geteuid() != 0:
        yield program, []
        return
    name = f"console-{os.getpid()}-{next(NUMBERS)}"
    await _ip("netns", "add", name)
    try:
        await _ip("-n", name, "link", "set", "lo", "up")
        with ThreadPoolExecutor(1) as thread:  # a thread that ends: it stays in the namespace
            listening = thread.submit(_listen, Path("/run/netns") / name).result()
        with tempfile.TemporaryDirectory() as folder:
            inside = Path(folder) / "chromium"
            inside.write_text(f'#!/bin/sh\nexec nsenter --net=/run/netns/{name} {program} "$@"\n')
            inside.chmod(0o755)
            async with await asyncio.start_server(_relay, sock=listening):
                port = listening.getsockname()[1]
                yield str(inside), [f"--proxy-server=socks5://127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>"]
    finally:
        await _ip("netns", "delete", name)


async def _ip(*arguments: str) -> None:
    await asyncio.to_thread(subprocess.run, ["ip", *arguments], check=True)


def _listen(namespace: Path) -> socket.socket:
    with namespace.open() as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    return socket.create_server(("127.0.0.1", 0))


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection of the browser, to a server on the loopback interface of the host."""
    try:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        kind = (await reader.readexactly(4))[3]
        length = 4 if kind == 1 else (await reader.readexactly(1))[0]
        await reader.readexactly(length)
        port = int.from_bytes(await reader.readexactly(2), "big")
        try:
            above, below = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.write(REFUSED)
            return
        writer.write(CONNECTED)
        try:
            await asyncio.gather(_copy(reader, below), _copy(above, writer))
        finally:
            below.close()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()
