"""Frames that a hostile guest sends: each arrives without the filters, and nowhere with them."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import pytest

from tests.attacks import frames
from tests.attacks.bed import HOST, Bed, Guest, bed, discovery
from tests.attacks.frames import ARP, BROADCAST, ICMPV6, IPV4, IPV6, QINQ, RARP, UDP, VLAN

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

NOBODY, OUTSIDE = "00:00:00:00:00:00", "198.51.100.77"
ALL_NODES, GROUP = "ff02::1", "33:33:00:00:00:01"
THIRD = "52:54:00:00:00:99"


@dataclass
class Scene:
    """The attacker, its neighbour of the same project, and the host."""

    bed: Bed
    me: Guest
    victim: Guest
    stranger: Guest
    mark: bytes = b""

    @property
    def host(self) -> str:
        return self.bed.host.mac


def arp(
    scene: Scene, operation: int, mac: str, address: str, *, ether: str | None = None, to: str = BROADCAST
) -> bytes:
    said = frames.arp(operation, (mac, address), (NOBODY, address))
    return frames.ethernet(ether or scene.me.mac, to, ARP, said + scene.mark)


def datagram(scene: Scene, source: str, *, ether: str | None = None, to: str = BROADCAST, port: int = 9) -> bytes:
    packet = frames.ipv4(source, "255.255.255.255", UDP, frames.udp(port, 68 if port == 67 else 9, scene.mark))
    return frames.ethernet(ether or scene.me.mac, to, IPV4, packet)


def tagged(scene: Scene, *tags: tuple[int, int]) -> bytes:
    packet = frames.ipv4(scene.me.ip, "255.255.255.255", UDP, frames.udp(9, 9, scene.mark))
    return frames.ethernet(scene.me.mac, BROADCAST, IPV4, packet, *tags)


def offer(scene: Scene, source: str) -> bytes:
    said = frames.dhcp(frames.ACK, scene.victim.mac, 7, server=HOST, given=OUTSIDE) + scene.mark
    packet = frames.ipv4(source, "255.255.255.255", UDP, frames.udp(67, 68, said))
    return frames.ethernet(scene.me.mac, BROADCAST, IPV4, packet)


def icmpv6(scene: Scene, kind: int, body: bytes, source: str = "fe80::1", extension: bytes = b"") -> bytes:
    unknown = bytes([253, 3]) + scene.mark.ljust(22, b"\0")
    message = frames.icmpv6(kind, body + unknown, source, ALL_NODES)
    return frames.ethernet(scene.me.mac, GROUP, IPV6, frames.ipv6(source, ALL_NODES, ICMPV6, message, extension))


def advertised(scene: Scene) -> bytes:
    """The body of a router advertisement: this guest is the router."""
    return bytes([64, 0, 7, 8]) + bytes(8) + bytes([1, 1]) + frames.mac(scene.me.mac)


def neighbour(scene: Scene) -> bytes:
    """The body of a neighbour advertisement: this guest has the address."""
    return bytes([0x20, 0, 0, 0]) + frames.ip("fe80::1") + bytes([2, 1]) + frames.mac(scene.me.mac)


def of_type(kind: int) -> Callable[[Scene], bytes]:
    return lambda scene: frames.ethernet(scene.me.mac, BROADCAST, kind, scene.mark.ljust(46, b"\0"))


HOP_BY_HOP = bytes([ICMPV6, 0, 1, 4, 0, 0, 0, 0])
SNAP = bytes([0xAA, 0xAA, 3, 0, 0, 0, 8, 0])

ARP_ATTACKS: dict[str, Callable[[Scene], bytes]] = {
    "the address of a neighbour, in a reply": lambda s: arp(s, 2, s.me.mac, s.victim.ip),
    "the address of a neighbour, in a request": lambda s: arp(s, 1, s.me.mac, s.victim.ip),
    "the address of a neighbour, to the host": lambda s: arp(s, 2, s.me.mac, s.victim.ip, to=s.host),
    "the address of the host": lambda s: arp(s, 2, s.me.mac, HOST),
    "an address that nobody has": lambda s: arp(s, 2, s.me.mac, "192.168.122.200"),
    "its own address with the hardware of a neighbour": lambda s: arp(s, 2, s.victim.mac, s.me.ip),
    "all of a neighbour in the message": lambda s: arp(s, 2, s.victim.mac, s.victim.ip),
    "all of a neighbour": lambda s: arp(s, 2, s.victim.mac, s.victim.ip, ether=s.victim.mac),
    "a probe with the hardware of a neighbour": lambda s: arp(s, 1, s.victim.mac, "0.0.0.0"),
    "reverse ARP": lambda s: frames.ethernet(s.me.mac, BROADCAST, RARP, frames.arp(3, (s.me.mac, s.me.ip)) + s.mark),
}
IP_ATTACKS: dict[str, Callable[[Scene], bytes]] = {
    "the address of a neighbour": lambda s: datagram(s, s.victim.ip),
    "the address of the host": lambda s: datagram(s, HOST),
    "an address from outside": lambda s: datagram(s, OUTSIDE),
    "the loopback address": lambda s: datagram(s, "127.0.0.1"),
    "no address": lambda s: datagram(s, "0.0.0.0"),
    "the broadcast address": lambda s: datagram(s, "255.255.255.255"),
}
MAC_ATTACKS: dict[str, Callable[[Scene], bytes]] = {
    "the hardware of a neighbour": lambda s: datagram(s, s.me.ip, ether=s.victim.mac),
    "hardware that nobody has": lambda s: datagram(s, s.me.ip, ether=THIRD),
    "the hardware of a neighbour, before it has an address": lambda s: discovery(
        s.me, frames.dhcp(frames.DISCOVER, s.victim.mac, 9) + s.mark, ether=s.victim.mac
    ),
}
DHCP_ATTACKS: dict[str, Callable[[Scene], bytes]] = {
    "a DHCP server": lambda s: offer(s, s.me.ip),
    "the DHCP server of the network": lambda s: offer(s, HOST),
    "a DHCP server without an address": lambda s: offer(s, "0.0.0.0"),
    "the hardware of a neighbour in a request": lambda s: discovery(
        s.me, frames.dhcp(frames.DISCOVER, s.victim.mac, 9) + s.mark, source=s.victim.ip
    ),
}
IPV6_ATTACKS: dict[str, Callable[[Scene], bytes]] = {
    "a router": lambda s: icmpv6(s, 134, advertised(s)),
    "a router, behind another header": lambda s: icmpv6(s, 134, advertised(s), extension=HOP_BY_HOP),
    "a redirect": lambda s: icmpv6(s, 137, frames.ip("fe80::2") + frames.ip("fe80::3")),
    "a neighbour": lambda s: icmpv6(s, 136, neighbour(s)),
    "a question for a neighbour": lambda s: icmpv6(s, 135, bytes(4) + frames.ip("fe80::2")),
    "a DHCP server of IPv6": lambda s: frames.ethernet(
        s.me.mac, GROUP, IPV6, frames.ipv6("fe80::1", ALL_NODES, UDP, frames.udp(547, 546, b"\x07\0\0\1" + s.mark))
    ),
    "a datagram": lambda s: frames.ethernet(
        s.me.mac, GROUP, IPV6, frames.ipv6("fe80::1", ALL_NODES, UDP, frames.udp(9, 9, s.mark))
    ),
}
OTHER_ATTACKS: dict[str, Callable[[Scene], bytes]] = {
    "a VLAN": lambda s: tagged(s, (VLAN, 5)),
    "the first VLAN": lambda s: tagged(s, (VLAN, 1)),
    "a priority without a VLAN": lambda s: tagged(s, (VLAN, 0x6000)),
    "a provider's VLAN": lambda s: tagged(s, (QINQ, 5)),
    "two VLANs": lambda s: tagged(s, (QINQ, 5), (VLAN, 1)),
    "two VLANs of one kind": lambda s: tagged(s, (VLAN, 1), (VLAN, 5)),
    "IPv4 in LLC": lambda s: frames.ethernet(
        s.me.mac, BROADCAST, 60, SNAP + frames.ipv4(HOST, "255.255.255.255", UDP, frames.udp(9, 9, s.mark))
    ),
    "MPLS": of_type(0x8847),
    "PPPoE": of_type(0x8863),
    "ATA": of_type(0x88A2),
    "precise time": of_type(0x88F7),
    "a loop": of_type(0x9000),
    "an unknown protocol": of_type(0x88B5),
}
ATTACKS = {
    f"{group}: {name}": attack
    for group, attacks in (
        ("ARP", ARP_ATTACKS),
        ("IPv4", IP_ATTACKS),
        ("MAC", MAC_ATTACKS),
        ("DHCP", DHCP_ATTACKS),
        ("IPv6", IPV6_ATTACKS),
        ("other", OTHER_ATTACKS),
    )
    for name, attack in attacks.items()
}


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """Nothing limits the guests yet."""
    async with bed(tmp_path_factory.mktemp("attacks") / "libvirt") as made:
        guests = [await made.guest(name, project) for name, project in (("me", "a"), ("it", "a"), ("other", "b"))]
        for guest in guests:
            await made.lease(guest)
        yield Scene(made, guests[0], guests[1], guests[2])


async def who_gets(scene: Scene, attack: Callable[[Scene], bytes]) -> set[str]:
    marked = replace(scene, mark=scene.bed.mark())
    return await scene.bed.who_gets(scene.me, attack(marked), marked.mark)


async def test_without_filters_all_of_it_arrives(scene: Scene) -> None:
    """So that the test below can fail."""
    assert [name for name, attack in ATTACKS.items() if not await who_gets(scene, attack)] == []


async def test_with_filters_none_of_it_arrives_anywhere(scene: Scene) -> None:
    made = scene.bed
    made.protect()
    for guest in made.guests.values():
        await made.lease(guest)
    allowed = await who_gets(scene, lambda s: arp(s, 1, s.me.mac, s.me.ip))
    assert allowed == {"host", "it"}, "what it may send, to its project"
    assert {name: got for name, attack in ATTACKS.items() if (got := await who_gets(scene, attack))} == {}
