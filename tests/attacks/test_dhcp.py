"""What a hostile guest tries with the DHCP server of its network, and by what the server tells others."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.attacks import frames
from tests.attacks.bed import HOST, Bed, Guest, Place, bed, discovery
from tests.attacks.frames import ARP, IPV4, UDP
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

#: A network whose addresses are given from another subnet than that of its bridge's first address.
TWO_ADDRESSES = """
<network>
  <name>default</name>
  <bridge name='virbr0'/>
  <forward/>
  <ip address='192.168.122.1' netmask='255.255.255.0'/>
  <ip address='192.168.133.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.133.2' end='192.168.133.254'/></dhcp>
  </ip>
</network>
"""
FOREIGN = "52:54:00:00:00:77"


@dataclass
class Scene:
    """An attacker, and a guest of its project."""

    bed: Bed
    me: Guest
    friend: Guest


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with bed(tmp_path_factory.mktemp("attacks") / "libvirt") as made:
        guests = [await made.guest(name, "a") for name in ("me", "friend")]
        made.protect()
        for guest in guests:
            await made.lease(guest)
        yield Scene(made, *guests)


async def claims(scene: Scene, guest: Guest, address: str) -> bool:
    """Whether the host hears that an address is the guest's."""
    mark = scene.bed.mark()
    guest.send(frames.ethernet(guest.mac, frames.BROADCAST, ARP, frames.arp(1, (guest.mac, address))) + mark)
    await scene.bed.settled(scene.friend)
    return scene.bed.host.has(mark)


@pytest.mark.parametrize("hardware", [(6, 6), (1, 7), (1, 16), (255, 6)])
async def test_one_guest_is_one_client(scene: Scene, hardware: tuple[int, int]) -> None:
    """Another type or length of the hardware address would be another client, with a lease of its own."""
    bed, me = scene.bed, scene.me
    before = set(bed.leases())
    kind, length = hardware
    for number, requested in enumerate(("192.168.122.240", "192.168.122.241")):
        asked = frames.dhcp(frames.REQUEST, me.mac, number, requested=requested, hardware=hardware)
        me.send(discovery(me, frames.dhcp(frames.DISCOVER, me.mac, number, hardware=hardware)))
        me.send(discovery(me, asked))
        renewed = frames.dhcp(frames.REQUEST, me.mac, number, own=me.ip, requested=requested, hardware=hardware)
        packet = frames.ipv4(me.ip, HOST, UDP, frames.udp(68, 67, renewed))
        me.send(frames.ethernet(me.mac, bed.host.mac, IPV4, packet))
    await bed.lease(me)  # the DHCP server answers one after the other
    assert set(bed.leases()) == before, (kind, length)


async def test_an_offer_gives_no_address(scene: Scene) -> None:
    """A server may offer an address to several guests."""
    bed, me = scene.bed, scene.me
    bed.give(me, "192.168.122.210", kind=frames.OFFER)
    assert not await claims(scene, me, "192.168.122.210")
    bed.give(me, "192.168.122.210")
    assert await claims(scene, me, "192.168.122.210"), "the test can fail"


@pytest.mark.parametrize("more", [-200, 0, 4000])
async def test_a_wrong_length_does_not_hide_a_dhcp_server(scene: Scene, more: int) -> None:
    """`more`: how much longer the packet says that it is. Clients read such packets with code of their own."""
    bed, me, mark = scene.bed, scene.me, scene.bed.mark()
    bed.host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")  # br_netfilter drops them, where it is used
    said = frames.dhcp(frames.ACK, scene.friend.mac, 7, server=HOST, given="192.168.122.230") + mark
    packet = frames.ipv4(me.ip, "255.255.255.255", UDP, frames.udp(67, 68, said))
    wrong = packet[:2] + (len(packet) + more).to_bytes(2, "big") + packet[4:10] + b"\0\0" + packet[12:]
    wrong = wrong[:10] + frames.checksum(wrong[:20]).to_bytes(2, "big") + wrong[12:]
    assert await bed.who_gets(me, frames.ethernet(me.mac, frames.BROADCAST, IPV4, wrong), mark) == set()


@pytest.mark.parametrize("to", [FOREIGN, frames.BROADCAST])
async def test_an_address_that_is_given_to_others_is_no_guests_any_more(scene: Scene, to: str) -> None:
    """Such as a guest of another node, or of another program, on the same bridge."""
    bed, me = scene.bed, scene.me
    bed.give(me, "192.168.122.211")
    assert await claims(scene, me, "192.168.122.211")
    bed.give(Place((), bed.host.agent, FOREIGN), "192.168.122.211", to=to)
    assert not await claims(scene, me, "192.168.122.211")
    assert await claims(scene, me, me.ip)
    bed.give(scene.friend, me.ip, to=frames.BROADCAST)
    assert not await claims(scene, me, me.ip), "nor if it is another guest of this node"
    await bed.lease(me)


async def test_an_address_that_was_leased_to_others_unseen_is_taken_away(scene: Scene) -> None:
    bed, me = scene.bed, scene.me
    table = f"nebula-{bed.names.word}"
    foreign = await bed.guest("foreign", "a")
    bed.protect()
    await bed.lease(foreign)
    bed.host.run("ip", "link", "set", bed.names.tap(foreign.vm), "name", "vnet77")
    del bed.guests["foreign"]  # from now on it is of another program
    bed.end_firewall()
    bed.host.run("nft", "delete", "table", "bridge", table)
    bed.protect()
    await bed.lease(me)
    number = json.loads(bed.host.run("nft", "-j", "list", "map", "bridge", table, "owners"))["nftables"][1]["map"]
    owner = next(owner for address, owner in number["elem"] if address == me.ip)
    bed.host.run("nft", "add", "element", "bridge", table, "owners", f"{{ {foreign.ip} : {owner} }}")
    assert await claims(scene, me, foreign.ip), "the test can fail"
    bed.protect()
    assert not await claims(scene, me, foreign.ip)
    assert await claims(scene, me, me.ip)


async def test_a_guest_that_was_suspended_has_its_address_still(scene: Scene) -> None:
    """It does not ask for an address again, and the server may have forgotten it."""
    bed = scene.bed
    guest = await bed.guest("sleeper", "a")
    bed.protect()
    bed.give(guest, "192.168.122.220")  # no lease that libvirt knows of
    assert await claims(scene, guest, "192.168.122.220")
    tap = bed.names.tap(guest.vm)
    bed.host.run("ip", "link", "set", tap, "name", "asleep")
    del bed.guests["sleeper"]
    bed.protect()
    assert tap not in bed.host.run("nft", "list", "table", "bridge", f"nebula-{bed.names.word}")
    bed.host.run("ip", "link", "set", "asleep", "name", tap)
    bed.guests["sleeper"] = guest
    bed.protect()
    assert await claims(scene, guest, "192.168.122.220")
    bed.give(scene.friend, "192.168.122.220")
    assert not await claims(scene, guest, "192.168.122.220")


async def test_the_server_may_have_another_address_than_the_first_of_its_bridge(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with bed(tmp_path_factory.mktemp("two") / "libvirt", TWO_ADDRESSES) as made:
        guest = await made.guest("guest", "a")
        await asyncio.to_thread(made.protect)

        async def is_offered() -> bool:
            guest.send(discovery(guest, frames.dhcp(frames.DISCOVER, guest.mac, 7)))
            await asyncio.sleep(0.1)
            answers = [frames.dhcp_answer(each, 7) for each in guest.received()]
            return any(each is not None and each[1].startswith("192.168.133.") for each in answers)

        await eventually(is_offered, "an offer of the DHCP server arrives")
