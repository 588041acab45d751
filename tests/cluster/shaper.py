"""Holds each packet between two interfaces for a random time, so that packets come late, and in another order.

`python -m tests.cluster.shaper ONE OTHER SECONDS`, in the network namespace of both; for kernels without netem. It ends
with its parent. Each frame keeps its header of virtio: without it, checksums that were left to the hardware are wrong.
"""

import ctypes
import heapq
import itertools
import random
import select
import signal
import socket
import sys
import time

ETH_P_ALL, SOL_PACKET = 0x0003, 263
PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 15, 23
PR_SET_PDEATHSIG = 1
MOST = 128 * 1024
READY = "shaping"


def opened(interface: str) -> socket.socket:
    """All frames that come in at an interface. What is sent here goes out there."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    found.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    found.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    found.bind((interface, ETH_P_ALL))
    found.setblocking(False)
    return found


def shape(one: socket.socket, other: socket.socket, most: float, chance: random.Random) -> None:
    """Pass frames on, each after up to `most` seconds, for ever."""
    there = {one: other, other: one}
    waiting: list[tuple[float, int, socket.socket, bytes]] = []
    numbers = itertools.count()
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, to, frame = heapq.heappop(waiting)
            try:
                to.send(frame)
            except OSError:  # a full queue loses packets, as a switch does
                continue
        wait = max(0.0, waiting[0][0] - now) if waiting else None
        for ready in select.select([one, other], [], [], wait)[0]:
            try:
                frame = ready.recv(MOST)
            except OSError:
                continue
            heapq.heappush(waiting, (time.monotonic() + chance.uniform(0, most), next(numbers), there[ready], frame))


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    one, other = map(opened, sys.argv[1:3])
    print(READY, flush=True)
    shape(one, other, float(sys.argv[3]), random.Random(7))
