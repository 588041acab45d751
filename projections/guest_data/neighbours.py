"""The host's neighbour table: which MAC address uses an address on the networks of this host (rtnetlink).

A client of a TCP connection has received the host's packets at this MAC address. The filters on the interfaces of
guests (`node_daemon/network/filters.py`) prevent that a guest uses the addresses of another one.
"""

import socket
import struct
from collections.abc import Iterator

RTM_NEWNEIGH, RTM_GETNEIGH, NLMSG_ERROR, NLMSG_DONE = 28, 30, 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NDA_DST, NDA_LLADDR = 1, 2
#: States of an entry without a MAC address that answered: incomplete, failed, noarp.
UNKNOWN = 0x01 | 0x20 | 0x40
#: Bytes of one datagram of the kernel, and seconds to wait for it.
MOST, SECONDS = 64 * 1024, 1.0

_HEADER = struct.Struct("=IHHII")
_NEIGHBOUR = struct.Struct("=BBHiHBB")
_ATTRIBUTE = struct.Struct("=HH")


def of(address: str) -> frozenset[str]:
    """The MAC addresses that use this address, on all networks of the host. Empty if the kernel does not answer."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        wanted = socket.inet_pton(family, address)
        return frozenset(mac for found, mac in _table(family) if found == wanted)
    except OSError:
        return frozenset()


def _table(family: int) -> Iterator[tuple[bytes, str]]:
    """All neighbours of a family: address and MAC address. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(SECONDS)
        netlink.bind((0, 0))
        body = _NEIGHBOUR.pack(family, 0, 0, 0, 0, 0, 0)
        header = _HEADER.pack(_HEADER.size + len(body), RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
        netlink.send(header + body)
        while True:
            for kind, message in _messages(netlink.recv(MOST)):
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    return
                if kind == RTM_NEWNEIGH and (neighbour := _neighbour(message, family)) is not None:
                    yield neighbour


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size : length]
        data = data[-(-length // 4) * 4 :]


def _neighbour(message: bytes, family: int) -> tuple[bytes, str] | None:
    found, _, _, _, state, _, _ = _NEIGHBOUR.unpack_from(message)
    if found != family or not state or state & UNKNOWN:
        return None
    attributes: dict[int, bytes] = {}
    rest = message[_NEIGHBOUR.size :]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if length < _ATTRIBUTE.size:
            break
        attributes[kind] = rest[_ATTRIBUTE.size : length]
        rest = rest[-(-length // 4) * 4 :]
    address, mac = attributes.get(NDA_DST), attributes.get(NDA_LLADDR)
    return (address, mac.hex(":")) if address and mac and len(mac) == 6 else None
