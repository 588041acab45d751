"""What a hostile guest tries on a network that has IPv6 addresses, where IPv6 passes."""

import os
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from tests.attacks import frames
from tests.attacks.bed import NETWORK, Bed, Guest, bed
from tests.attacks.frames import ICMPV6, IPV6, UDP

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

WITH_IPV6 = NETWORK.replace("  <dnsmasq:", "  <ip family='ipv6' address='fd00:7::1' prefix='64'/>\n  <dnsmasq:", 1)
SOURCE, ALL_NODES, GROUP = "fe80::66", "ff02::1", "33:33:00:00:00:01"
ROUTER, REDIRECT, SOLICITATION = 134, 137, 135
FRAGMENT, OPTIONS, HOP_BY_HOP = 44, 60, 0
#: An extension header of 8 bytes, without its first byte: the type of what follows.
PADDING = bytes([0, 1, 4, 0, 0, 0, 0])


@dataclass
class Scene:
    bed: Bed
    me: Guest
    mark: bytes = b""

    def packet(self, first: int, payload: bytes) -> bytes:
        """`first`: the type of the payload's first header."""
        head = struct.pack("!IHBB", 6 << 28, len(payload), first, 255) + frames.ip(SOURCE) + frames.ip(ALL_NODES)
        return frames.ethernet(self.me.mac, GROUP, IPV6, head + payload)

    def icmp(self, kind: int) -> bytes:
        return frames.icmpv6(kind, bytes(20) + bytes([253, 3]) + self.mark.ljust(22, b"\0"), SOURCE, ALL_NODES)

    def udp(self, port: int) -> bytes:
        return frames.udp(port, 546, self.mark)


def fragment(following: int, payload: bytes) -> bytes:
    """The first fragment of a packet. `following`: the type of its first header."""
    return bytes([following, 0]) + struct.pack("!HI", 1, 7) + payload


ALLOWED: dict[str, Callable[[Scene], bytes]] = {
    "a datagram": lambda s: s.packet(UDP, s.udp(9)),
    "the first fragment of one": lambda s: s.packet(FRAGMENT, fragment(UDP, s.udp(9))),
    "a question for a neighbour": lambda s: s.packet(ICMPV6, s.icmp(SOLICITATION)),
    "options": lambda s: s.packet(OPTIONS, bytes([UDP]) + PADDING + s.udp(9)),
}
ATTACKS: dict[str, Callable[[Scene], bytes]] = {
    "a router": lambda s: s.packet(ICMPV6, s.icmp(ROUTER)),
    "a router, behind another header": lambda s: s.packet(HOP_BY_HOP, bytes([ICMPV6]) + PADDING + s.icmp(ROUTER)),
    "a router, in a fragment": lambda s: s.packet(FRAGMENT, fragment(ICMPV6, s.icmp(ROUTER))),
    "a router, in a fragment behind another header": lambda s: s.packet(
        OPTIONS, bytes([FRAGMENT]) + PADDING + fragment(ICMPV6, s.icmp(ROUTER))
    ),
    "a fragment that ends before its last header": lambda s: s.packet(
        FRAGMENT, fragment(OPTIONS, bytes([ICMPV6, 8]) + s.mark.ljust(30, b"\0"))
    ),
    "a fragment of a fragment": lambda s: s.packet(
        FRAGMENT, fragment(FRAGMENT, fragment(ICMPV6, s.mark.ljust(16, b"\0")))
    ),
    "a redirect": lambda s: s.packet(ICMPV6, s.icmp(REDIRECT)),
    "a DHCP server": lambda s: s.packet(UDP, s.udp(547)),
    "a DHCP server, behind another header": lambda s: s.packet(OPTIONS, bytes([UDP]) + PADDING + s.udp(547)),
}


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with bed(tmp_path_factory.mktemp("attacks") / "libvirt", WITH_IPV6) as made:
        # with br_netfilter, as on some hosts, the kernel itself keeps fragments until it has all
        made.host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-ip6tables=0")
        guests = [await made.guest(name, project) for name, project in (("me", "a"), ("friend", "a"), ("other", "b"))]
        made.protect()
        for guest in guests:
            await made.lease(guest)
        yield Scene(made, guests[0])


async def who_gets(scene: Scene, attack: Callable[[Scene], bytes]) -> set[str]:
    marked = Scene(scene.bed, scene.me, scene.bed.mark())
    return await scene.bed.who_gets(scene.me, attack(marked), marked.mark)


async def test_ipv6_reaches_the_own_project(scene: Scene) -> None:
    own = {"host", "friend"}
    assert {name: got for name, each in ALLOWED.items() if (got := await who_gets(scene, each)) != own} == {}


async def test_no_guest_is_a_router_or_a_dhcp_server(scene: Scene) -> None:
    assert {name: got for name, attack in ATTACKS.items() if (got := await who_gets(scene, attack))} == {}
