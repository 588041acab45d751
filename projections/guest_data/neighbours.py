"""The host's neighbour table: which MAC address uses an address on a network of this host (rtnetlink).

A client of a TCP connection has received the host's packets at this MAC address. The node's table of nftables
(`node_daemon/network/guest_table.py`) prevents that a guest uses the addresses of another one. Only the network counts
on which the host has the address that the client has connected to. The host also accepts such connections from its
other networks, where nothing checks MAC addresses.
"""

import socket
import struct
from collections.abc import Iterator

RTM_NEWADDR, RTM_GETADDR, RTM_NEWNEIGH, RTM_GETNEIGH, NLMSG_ERROR, NLMSG_DONE = 20, 22, 28, 30, 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
IFA_ADDRESS, IFA_LOCAL, NDA_DST, NDA_LLADDR = 1, 2, 1, 2
#: States of an entry without a MAC address that answered: incomplete, failed, noarp.
UNKNOWN = 0x01 | 0x20 | 0x40
#: Bytes of one datagram of the kernel, and seconds to wait for it.
MOST, SECONDS = 64 * 1024, 1.0

_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
_NEIGHBOUR = struct.Struct("=BBHiHBB")
_ATTRIBUTE = struct.Struct("=HH")


def of(address: str, server: str) -> frozenset[str]:
    """The MAC addresses that use this address on the network on which the host has the address `server`.

    Empty if the kernel does not answer.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        client, own = socket.inet_pton(family, address), socket.inet_pton(family, server)
        networks = {found for found, local in _addresses(family) if local == own}
        return frozenset(mac for found, used, mac in _neighbours(family) if used == client and found in networks)
    except OSError:
        return frozenset()


def _addresses(family: int) -> Iterator[tuple[int, bytes]]:
    """The addresses of this host: the index of the interface, and the address. Raises OSError."""
    for message in _dump(RTM_GETADDR, RTM_NEWADDR, _ADDRESS.pack(family, 0, 0, 0, 0)):
        found, _, _, _, index = _ADDRESS.unpack_from(message)
        attributes = _attributes(message[_ADDRESS.size :])
        address = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS)
        if found == family and address:
            yield index, address


def _neighbours(family: int) -> Iterator[tuple[int, bytes, str]]:
    """All neighbours of a family: the index of the interface, the address and the MAC address. Raises OSError."""
    for message in _dump(RTM_GETNEIGH, RTM_NEWNEIGH, _NEIGHBOUR.pack(family, 0, 0, 0, 0, 0, 0)):
        found, _, _, index, state, _, _ = _NEIGHBOUR.unpack_from(message)
        if found != family or not state or state & UNKNOWN:
            continue
        attributes = _attributes(message[_NEIGHBOUR.size :])
        address, mac = attributes.get(NDA_DST), attributes.get(NDA_LLADDR)
        if address and mac and len(mac) == 6:
            yield index, address, mac.hex(":")


def _dump(asked: int, answered: int, body: bytes) -> Iterator[bytes]:
    """The kernel's answers to one question. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(SECONDS)
        netlink.bind((0, 0))
        netlink.send(_HEADER.pack(_HEADER.size + len(body), asked, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + body)
        while True:
            for kind, message in _messages(netlink.recv(MOST)):
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    return
                if kind == answered:
                    yield message


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size : length]
        data = data[-(-length // 4) * 4 :]


def _attributes(rest: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = rest[_ATTRIBUTE.size : length]
        rest = rest[-(-length // 4) * 4 :]
    return found
