"""Packets between two hosts are held for a random time: they come in another order, and all of them come whole."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from cli.local.cluster.network import Network, namespaces
from tests.cluster.faults import shaped

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")
DATAGRAMS, LETTERS = 200, 300_000
#: Sends numbered datagrams, and then a long text by TCP.
SENDS = f"""
import socket, sys
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range({DATAGRAMS}):
    udp.sendto(b"%d" % number, (sys.argv[1], 5000))
with socket.create_connection((sys.argv[1], 5001), 20) as tcp:
    tcp.sendall(b"x" * {LETTERS})
"""


@pytest.fixture
async def two() -> AsyncIterator[Network]:
    async with namespaces(["a", "b"]) as network:
        yield network


async def received(network: Network) -> tuple[list[int], int]:
    """The numbers of datagrams of host a in the order in which they came here, and the length of the text."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((network.here, 5000))
        udp.setblocking(False)
        whole = loop.create_future()

        async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            whole.set_result(len(await reader.read(-1)))
            writer.close()

        server = await asyncio.start_server(read, network.here, 5001)
        host = network.host("a")
        python = ["/usr/bin/env", "python3", "-c", SENDS, network.here]
        process = await asyncio.create_subprocess_exec("ip", "netns", "exec", str(host.namespace), *python)
        assert await process.wait() == 0
        length = await asyncio.wait_for(whole, 60)
        server.close()
        numbers = [int(await asyncio.wait_for(loop.sock_recv(udp, 100), 20)) for _ in range(DATAGRAMS)]
    return numbers, length


async def test_packets_come_in_another_order_and_whole(two: Network) -> None:
    assert await received(two) == (list(range(DATAGRAMS)), LETTERS)
    async with shaped(two, "a", 0.02):
        numbers, length = await received(two)
    assert numbers != sorted(numbers)
    assert (sorted(numbers), length) == (list(range(DATAGRAMS)), LETTERS)
    assert await received(two) == (list(range(DATAGRAMS)), LETTERS)
