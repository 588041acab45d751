"""What a hostile guest tries with the bridge, the DHCP server and the host: frames of every kind, and real connections.

Each test first sends what a guest may send, so that it cannot pass because nothing arrives.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.attacks import frames
from tests.attacks.bed import BRIDGE, HOST, OUTSIDE, SEED, Bed, Guest, bed, discovery
from tests.attacks.frames import ARP, IPV4, UDP

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

#: Frames to these addresses never leave a bridge; its port passes them to the host itself.
LINK_LOCAL = [f"01:80:c2:00:00:{last:02x}" for last in range(16)]
METADATA = "169.254.169.254"

#: Prints what comes to a UDP port.
HEAR = """
import socket, sys
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("", int(sys.argv[1])))
print("listens", flush=True)
while True:
    print(link.recv(2000).hex(), flush=True)
"""


@dataclass
class Scene:
    """An attacker, a guest of another project, and one of its own project."""

    bed: Bed
    me: Guest
    other: Guest
    friend: Guest


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with bed(tmp_path_factory.mktemp("attacks") / "libvirt") as made:
        guests = [await made.guest(name, project) for name, project in (("me", "a"), ("other", "b"), ("friend", "a"))]
        made.protect()
        for guest in guests:
            await made.lease(guest)
        yield Scene(made, *guests)


def port_of(scene: Scene, guest: Guest) -> str:
    """The port at which the bridge believes a guest to be."""
    scene.bed.arrives(guest, scene.bed.own_arp(guest))
    return next(
        str(entry["ifname"])
        for entry in json.loads(scene.bed.host.run("bridge", "-j", "fdb", "show", "br", BRIDGE))
        if entry["mac"] == guest.mac and "vlan" not in entry
    )


async def claims(bed: Bed, guest: Guest, address: str, allowed: Guest | None = None) -> bool:
    """Whether the host hears that an address is the guest's. `allowed`: a guest whose frames arrive."""
    mark = bed.mark()
    guest.send(frames.ethernet(guest.mac, frames.BROADCAST, ARP, frames.arp(1, (guest.mac, address))) + mark)
    await bed.settled(allowed or guest)
    return bed.host.has(mark)


def neighbours(scene: Scene, address: str) -> set[str]:
    """What guest-data finds in the neighbour table of the host."""
    program = "import sys; from projections.guest_data import neighbours; print(*sorted(neighbours.of(*sys.argv[1:])))"
    return set(scene.bed.host.python(program, address, HOST, inside=("--mount",)).stdout.split())


async def test_the_bridge_cannot_be_told_that_a_neighbour_is_elsewhere(scene: Scene) -> None:
    me, other = scene.me, scene.other
    assert port_of(scene, other) == scene.bed.names.tap(other.vm)
    for target in LINK_LOCAL:
        for kind, body in ((IPV4, b""), (0x88CC, b""), (39, b"\x42\x42\x03")):
            me.send(frames.ethernet(other.mac, target, kind, body.ljust(46, b"\0")))
    await scene.bed.settled(me)
    table = json.loads(scene.bed.host.run("bridge", "-j", "fdb", "show", "br", BRIDGE))
    assert {entry["ifname"] for entry in table if entry["mac"] == other.mac} == {scene.bed.names.tap(other.vm)}


async def test_no_way_around_the_rules_of_the_bridge_leads_to_a_port_of_the_host(scene: Scene) -> None:
    bed, me = scene.bed, scene.me
    hears = bed.start(bed.host.enter, sys.executable, "-u", "-c", HEAR, "5353")
    assert hears.stdout is not None
    assert hears.stdout.readline() == "listens\n"
    for source in (me.ip, "203.0.113.9", scene.other.ip):
        for target in (bed.host.mac, frames.BROADCAST, *LINK_LOCAL):
            packet = frames.ipv4(source, HOST, UDP, frames.udp(9, 5353, b"attack"))
            me.send(frames.ethernet(me.mac, target, IPV4, packet))
    await bed.settled(me)
    bed.host.python("import socket; socket.socket(2, 2).sendto(b'own', ('127.0.0.1', 5353))")
    assert bytes.fromhex(hears.stdout.readline()) == b"own"


async def test_nobody_makes_the_address_of_a_neighbour_ambiguous(scene: Scene) -> None:
    """guest-data serves nobody whose address has two owners."""
    bed, me, other = scene.bed, scene.me, scene.other
    bed.arrives(other, bed.own_arp(other))
    assert other.reaches(HOST, 53)
    for target in LINK_LOCAL:
        asked = frames.arp(1, (me.mac, other.ip), ("00:00:00:00:00:00", HOST))
        me.send(frames.ethernet(me.mac, target, ARP, asked))
    await bed.settled(me)
    assert neighbours(scene, other.ip) == {other.mac}


async def test_nobody_ends_the_lease_of_a_neighbour(scene: Scene) -> None:
    bed, me, other = scene.bed, scene.me, scene.other
    leases = {me.mac: me.ip, other.mac: other.ip}
    assert leases.items() <= bed.leases().items()
    for name in (b"", b"\1" + frames.mac(other.mac)):
        for client in (other.mac, me.mac) if name else (other.mac,):
            said = frames.dhcp(frames.RELEASE, client, 7, server=HOST, own=other.ip, name=name)
            packet = frames.ipv4(me.ip, HOST, UDP, frames.udp(68, 67, said))
            me.send(frames.ethernet(me.mac, bed.host.mac, IPV4, packet))
    await bed.lease(me)  # the DHCP server answers one after the other
    assert leases.items() <= bed.leases().items()


async def test_nobody_uses_up_the_addresses(scene: Scene) -> None:
    bed, me = scene.bed, scene.me
    before = set(bed.leases())
    for number in range(20):
        invented, address = f"52:54:99:00:00:{number:02x}", f"192.168.122.{30 + number}"
        me.send(discovery(me, frames.dhcp(frames.DISCOVER, invented, number)))
        me.send(discovery(me, frames.dhcp(frames.REQUEST, invented, number, requested=address, server=HOST)))
    await bed.lease(me)
    assert set(bed.leases()) == before


async def test_nobody_gets_the_address_of_a_neighbour_by_its_name(scene: Scene) -> None:
    """A DHCP server may know its clients by what they say of themselves."""
    bed = scene.bed
    named, thief = await bed.guest("named", "b"), await bed.guest("thief", "a")
    bed.protect()
    name = b"\1" + frames.mac(named.mac)
    await bed.lease(named, name)
    await bed.lease(thief, name)
    assert thief.ip != named.ip
    claimed = frames.ethernet(thief.mac, frames.BROADCAST, ARP, frames.arp(1, (thief.mac, named.ip)))
    assert not bed.arrives(thief, claimed)


async def test_an_answer_for_a_neighbour_gives_no_right_to_its_address(scene: Scene) -> None:
    bed, me, friend = scene.bed, scene.me, scene.friend
    await bed.lease(friend)  # with answers by broadcast, which all guests get
    await bed.lease(me)
    claimed = frames.ethernet(me.mac, frames.BROADCAST, ARP, frames.arp(1, (me.mac, friend.ip)))
    assert not bed.arrives(me, claimed)


async def test_of_the_host_only_the_data_source_and_dns_are_reached(scene: Scene) -> None:
    bed, me = scene.bed, scene.me
    ports = {"ssh": 22, "bus": 4222, "Postgres": 5432, "gateway": 8700, "libvirt": 16509, "VNC": 5900}
    bed.listen(bed.host, "0.0.0.0", SEED, *ports.values())
    assert me.reaches(HOST, SEED)
    assert me.reaches(HOST, 53)
    reached = await asyncio.gather(*(asyncio.to_thread(me.reaches, HOST, port) for port in ports.values()))
    assert {name for name, works in zip(ports, reached, strict=True) if works} == set()


async def test_the_metadata_of_the_host_are_not_for_guests(scene: Scene) -> None:
    bed, me = scene.bed, scene.me
    outside = bed.uplink(OUTSIDE, METADATA)
    bed.listen(outside, "0.0.0.0", 80, 4222)
    assert me.reaches(OUTSIDE, 80)
    assert bed.host.reaches(METADATA, 80)
    assert not me.reaches(METADATA, 80)
    assert not me.reaches(OUTSIDE, 4222), "the bus"


async def test_a_guest_of_another_project_gets_nothing(scene: Scene) -> None:
    bed, me = scene.bed, scene.me
    for guest in (scene.friend, scene.other):
        bed.listen(guest, "0.0.0.0", 7000)
    assert me.reaches(scene.friend.ip, 7000)
    assert not me.reaches(scene.other.ip, 7000)
    for here, there in ((me, scene.other), (scene.other, me)):
        here.run("ip", "route", "replace", f"{there.ip}/32", "via", HOST)
    assert not me.reaches(scene.other.ip, 7000), "by way of the host"
    for target in (scene.other.mac, frames.BROADCAST, "01:00:5e:00:00:01"):
        mark = bed.mark()
        packet = frames.ipv4(me.ip, scene.other.ip, UDP, frames.udp(9, 9, mark))
        assert await bed.who_gets(me, frames.ethernet(me.mac, target, IPV4, packet), mark) <= {
            "host",
            "friend",
            "thief",
        }


async def test_what_is_denied_is_logged(scene: Scene) -> None:
    assert not scene.me.reaches(HOST, 5432)
    said = await asyncio.to_thread(scene.bed.protect)
    assert "packets of guests to what they must not reach were dropped" in " ".join(said)


async def test_a_table_that_was_removed_is_made_again_with_the_addresses(scene: Scene) -> None:
    bed, me, friend = scene.bed, scene.me, scene.friend
    bed.protect()
    await bed.lease(me)
    bed.host.run("nft", "delete", "table", "bridge", f"nebula-{bed.names.word}")
    assert await claims(bed, me, friend.ip), "without it, all is open"
    said = bed.protect()
    assert "the rules for the frames of guests were changed" in " ".join(said)
    assert not await claims(bed, me, friend.ip)
    assert await claims(bed, me, me.ip), "the addresses of guests are known still"
    assert await claims(bed, friend, friend.ip)


async def test_a_changed_table_is_repaired(scene: Scene) -> None:
    bed, me, friend = scene.bed, scene.me, scene.friend
    table, tap = f"nebula-{bed.names.word}", bed.names.tap(me.vm)
    bed.protect()
    await bed.lease(me)
    bed.host.run("nft", "flush", "chain", "bridge", table, f"sends-{tap}")
    assert not await claims(bed, me, me.ip, friend), "a guest without rules is closed"
    bed.protect()
    assert await claims(bed, me, me.ip)
    bed.host.run("nft", "insert", "rule", "bridge", table, "from", "accept")
    assert await claims(bed, me, friend.ip)
    bed.protect()
    assert not await claims(bed, me, friend.ip)
    assert await claims(bed, me, me.ip)


async def test_another_process_of_the_daemon_keeps_the_addresses(scene: Scene) -> None:
    bed, me, friend = scene.bed, scene.me, scene.friend
    bed.protect()
    bed.give(me, "192.168.122.200")  # no lease of the network's own server
    bed.end_firewall()
    assert not await claims(bed, me, friend.ip, friend), "it is closed also without a daemon"
    bed.protect()
    assert await claims(bed, me, "192.168.122.200", friend)
    assert not await claims(bed, me, friend.ip, friend)
    await bed.lease(me)


async def test_addresses_of_guests_that_have_ended_are_free(scene: Scene) -> None:
    """A lease that the kernel has missed counts, also if it was another guest's address before."""
    bed, me, friend = scene.bed, scene.me, scene.friend
    await bed.lease(me)
    bed.end_firewall()
    table = f"nebula-{bed.names.word}"
    bed.host.run("nft", "delete", "element", "bridge", table, "owners", f"{{ {me.ip} }}")
    bed.host.run("nft", "add", "element", "bridge", table, "owners", f"{{ {me.ip} : 999 }}")
    assert not await claims(bed, me, me.ip, friend)
    bed.protect()
    assert await claims(bed, me, me.ip, friend)


async def test_an_address_belongs_to_the_guest_that_it_was_given_to_last(scene: Scene) -> None:
    bed = scene.bed
    before, after = await bed.guest("before", "a"), await bed.guest("after", "a")
    bed.protect()
    await bed.lease(before)
    assert await claims(bed, before, before.ip)
    bed.give(after, before.ip)
    assert await claims(bed, after, before.ip, scene.friend)
    assert not await claims(bed, before, before.ip, scene.friend)


async def test_only_answers_of_the_networks_own_server_count(scene: Scene) -> None:
    bed, me = scene.bed, scene.me
    bed.protect()
    bed.give(me, "192.168.122.201", server="192.168.122.250")
    assert not await claims(bed, me, "192.168.122.201", scene.friend)
    bed.give(me, "192.168.122.201")
    assert await claims(bed, me, "192.168.122.201", scene.friend)
    bed.give(scene.friend, "192.168.122.202", to=frames.BROADCAST)
    assert not await claims(bed, me, "192.168.122.202", scene.friend), "all guests got the answer"


async def test_frames_with_foreign_addresses_are_counted(scene: Scene) -> None:
    bed, me = scene.bed, scene.me
    bed.protect()
    assert not await claims(bed, me, scene.friend.ip, scene.friend)
    said = " ".join(bed.protect())
    assert "nftables bridge" in said and me.mac in said
