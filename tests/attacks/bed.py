"""A host with a libvirt network and its firewall, and guests that are network namespaces.

Nothing is booted. The firewall is the one of the node daemon, the DHCP server is the network's dnsmasq. All is in
namespaces, so other users of the machine are not affected.
"""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libvirt

from domain.mac import derived
from node_daemon.hypervisor import networks
from node_daemon.hypervisor.host_names import HostNames
from runtime.local.libvirtd import DEFAULT_NETWORK
from tests.attacks import frames
from tests.node_daemon.own_libvirt import OwnLibvirt, own_libvirt
from tests.waiting import eventually

AGENT = Path(__file__).with_name("agent.py")
BRIDGE, HOST, SEED = "virbr0", "192.168.122.1", 8775
#: On another host, which guests reach by way of theirs.
OUTSIDE, UPLINK = "198.51.100.1", "198.51.100.2"

#: Its DHCP server does not wait 3 seconds for an answer to a ping before it offers an address.
NETWORK = DEFAULT_NETWORK.replace("</dnsmasq:options>", "<dnsmasq:option value='no-ping'/></dnsmasq:options>")

FIREWALL = """
import asyncio, json, libvirt, sys, uvloop
from pathlib import Path
from node_daemon.hypervisor import networks
from node_daemon.hypervisor.host_names import HostNames
from node_daemon.network import host_firewall
async def main():
    connection = libvirt.open(sys.argv[2])
    network = lambda: asyncio.to_thread(networks.describe, connection, "default")
    firewall = host_firewall.HostFirewall(HostNames(Path(sys.argv[1])), network, [("198.51.100.1", 4222)])
    for line in sys.stdin:
        firewall._checked -= host_firewall.CHECK_SECONDS
        projects, macs = json.loads(line)
        for vm, mac in macs.items():
            async with firewall.starting(vm, mac, projects[vm], sys.argv[3]):
                pass
        await firewall.keep(projects, sys.argv[3:], macs)
        print("done", flush=True)
uvloop.run(main())
"""
LISTEN = """
import select, socket, sys
found = [socket.create_server((sys.argv[1], int(port))) for port in sys.argv[2:]]
print("listens", flush=True)
while True:
    for one in select.select(found, [], [])[0]:
        one.accept()[0].close()
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.0)
except OSError:
    sys.exit(1)
"""


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@dataclass
class Place:
    """A network namespace with an interface, and the agent on it."""

    enter: tuple[str, ...]
    agent: "subprocess.Popen[str]"
    mac: str
    ip: str = ""

    def _ask(self, command: Mapping[str, object]) -> Any:
        assert self.agent.stdin is not None and self.agent.stdout is not None
        self.agent.stdin.write(json.dumps(command) + "\n")
        self.agent.stdin.flush()
        return json.loads(self.agent.stdout.readline())

    def send(self, frame: bytes) -> None:
        self._ask({"send": frame.hex()})

    def received(self) -> list[bytes]:
        return [bytes.fromhex(each) for each in self._ask({"received": True})]

    def has(self, mark: bytes) -> bool:
        """Whether a frame with these bytes was received."""
        return any(mark in each for each in self.received())

    def run(self, *argv: str) -> str:
        return run(*self.enter, *argv)

    def python(self, program: str, *argv: str, inside: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        command = [*self.enter, *inside, sys.executable, "-c", program, *argv]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    def reaches(self, address: str, port: int) -> bool:
        return self.python(CONNECT, address, str(port)).returncode == 0


@dataclass
class Guest(Place):
    vm: str = ""
    project: str = ""


@dataclass
class Bed:
    own: OwnLibvirt
    stack: ExitStack
    connection: Any
    host: Place
    names: HostNames
    guests: dict[str, Guest] = field(default_factory=dict)
    firewall: "subprocess.Popen[str] | None" = None
    marks: int = 0

    def start(self, enter: tuple[str, ...], *argv: str, **more: Any) -> "subprocess.Popen[str]":
        """A process in a namespace, until the end."""
        child = subprocess.Popen([*enter, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)
        self.stack.callback(child.wait)
        self.stack.callback(child.kill)
        return child

    def namespace(self, name: str) -> None:
        run("ip", "netns", "add", name)
        self.stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)

    def listen(self, place: Place, address: str, *ports: int) -> None:
        child = self.start(place.enter, sys.executable, "-c", LISTEN, address, *map(str, ports))
        assert child.stdout is not None
        assert child.stdout.readline() == "listens\n"

    def mark(self) -> bytes:
        """Bytes that no other frame has."""
        self.marks += 1
        return b"mark" + os.urandom(8) + self.marks.to_bytes(4, "big")

    async def guest(self, name: str, project: str) -> Guest:
        """A guest without an address. Nothing limits it before the next `protect`."""
        vm = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        tap, space, mac = self.names.tap(vm), f"nba{os.getpid()}-{name}", derived(vm)
        self.namespace(space)
        enter = ("ip", "netns", "exec", space)
        peer = ("peer", "name", "eth0", "address", mac, "netns", space)
        self.host.run("ip", "link", "add", tap, "type", "veth", *peer)
        self.host.run("ip", "link", "set", tap, "master", BRIDGE, "up")
        for device in ("lo", "eth0"):
            run(*enter, "ip", "link", "set", device, "up")

        def forwards() -> bool:
            return "state forwarding" in self.host.run("bridge", "link", "show", "dev", tap)

        await eventually(forwards, "the bridge forwards")
        made = Guest(enter, self.watch(enter, "eth0"), mac, vm=vm, project=project)
        self.guests[name] = made
        return made

    def watch(self, enter: tuple[str, ...], device: str) -> "subprocess.Popen[str]":
        agent = self.start(enter, sys.executable, str(AGENT), device)
        assert agent.stdout is not None
        assert agent.stdout.readline() == '"ready"\n'
        return agent

    def protect(self, *seed_urls: str) -> list[str]:
        """Let the node daemon's firewall make its rules for all guests. What it says."""
        if self.firewall is None:
            urls = (f"http://{HOST}:{SEED}/", *seed_urls)
            command = (sys.executable, "-c", FIREWALL, str(self.names.folder), self.own.uri, *urls)
            self.firewall = self.start((*self.host.enter, "--mount"), *command)
        child = self.firewall
        assert child.stdin is not None and child.stdout is not None
        guests = self.guests.values()
        given = [{each.vm: each.project for each in guests}, {each.vm: each.mac for each in guests}]
        child.stdin.write(json.dumps(given) + "\n")
        child.stdin.flush()
        said: list[str] = []
        while (line := child.stdout.readline()) not in ("done\n", ""):
            said.append(line)
        assert line == "done\n", said
        return said

    def uplink(self, *addresses: str) -> Place:
        """Another host with these addresses, which guests reach by way of theirs."""
        space = f"nba{os.getpid()}-outside"
        self.namespace(space)
        outside = Place(("ip", "netns", "exec", space), None, "")  # type: ignore[arg-type]
        self.host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", space)
        self.host.run("ip", "address", "add", f"{UPLINK}/24", "dev", "up0")
        self.host.run("ip", "link", "set", "up0", "up")
        self.host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        outside.run("ip", "link", "set", "eth0", "up")
        for address in addresses:
            outside.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        outside.run("ip", "route", "replace", "default", "via", UPLINK)
        self.host.run("ip", "route", "replace", "default", "via", addresses[0])
        return outside

    def leases(self) -> dict[str, str]:
        """The leases of the DHCP server: the address of each MAC address."""
        found = self.connection.networkLookupByName("default").DHCPLeases()
        return {each["mac"]: each["ipaddr"] for each in found}

    async def lease(self, guest: Guest, name: bytes = b"") -> None:
        """Get an address from the DHCP server of the network, and use it. `name`: the client identifier."""

        async def has_address() -> bool:
            guest.ip = await self.ask_for_address(guest, name)
            return self.arrives(guest, self.own_arp(guest))

        await eventually(has_address, "the filter knows the address")
        guest.run("ip", "address", "replace", f"{guest.ip}/24", "dev", "eth0")
        guest.run("ip", "route", "replace", "default", "via", HOST)

    async def ask_for_address(self, guest: Guest, name: bytes = b"") -> str:
        """The address that the DHCP server of the network gives to a guest."""
        number = int.from_bytes(os.urandom(4), "big")

        async def exchange(kind: int, expected: int, requested: str | None = None, server: str | None = None) -> str:
            asked = frames.dhcp(kind, guest.mac, number, name=name, requested=requested, server=server)
            found: list[str] = []

            async def answered() -> bool:
                guest.send(discovery(guest, asked))
                await asyncio.sleep(0.1)
                answers = (frames.dhcp_answer(each, number) for each in guest.received())
                found.extend(each[1] for each in answers if each is not None and each[0] == expected)
                return bool(found)

            await eventually(answered, f"the answer {expected} of the DHCP server")
            return found[0]

        offered = await exchange(frames.DISCOVER, frames.OFFER)
        return await exchange(frames.REQUEST, frames.ACK, requested=offered, server=HOST)

    def give(
        self, guest: Place, address: str, server: str = HOST, to: str | None = None, kind: int = frames.ACK
    ) -> None:
        """Let the host send the answer by which a DHCP server gives an address to a guest."""
        message = frames.dhcp(kind, guest.mac, 1, given=address, server=server)
        packet = frames.ipv4(server, "255.255.255.255", frames.UDP, frames.udp(67, 68, message))
        self.host.send(frames.ethernet(self.host.mac, to or guest.mac, frames.IPV4, packet))

    def end_firewall(self) -> None:
        """Kill the node daemon's firewall."""
        assert self.firewall is not None
        self.firewall.kill()
        self.firewall.wait()
        self.firewall = None

    def own_arp(self, guest: Guest) -> bytes:
        """What every guest may send."""
        said = frames.arp(1, (guest.mac, guest.ip), ("00:00:00:00:00:00", HOST))
        return frames.ethernet(guest.mac, frames.BROADCAST, frames.ARP, said)

    def arrives(self, guest: Guest, frame: bytes) -> bool:
        """Whether the host receives an ARP frame."""
        mark = self.mark()
        guest.send(frame + mark)
        return self.host.has(mark)

    async def settled(self, guest: Guest) -> None:
        """Wait until all frames that a guest has sent have arrived, or never will."""
        await eventually(lambda: self.arrives(guest, self.own_arp(guest)), "the host receives what a guest may send")

    async def who_gets(self, guest: Guest, frame: bytes, mark: bytes) -> set[str]:
        """The names of the places that receive a frame with this mark, once later frames have arrived."""
        fence, last = self.mark(), self.mark()
        guest.send(frame)
        guest.send(self.own_arp(guest) + fence)
        await eventually(lambda: self.host.has(fence), "the host receives what a guest may send")
        others = {name: each for name, each in self.guests.items() if each is not guest}
        asked = frames.arp(1, (self.host.mac, HOST), ("00:00:00:00:00:00", "192.168.122.250"))

        def all_received() -> bool:
            self.host.send(frames.ethernet(self.host.mac, frames.BROADCAST, frames.ARP, asked) + last)
            return all(each.has(last) for each in others.values())

        await eventually(all_received, "guests receive what the host sends")
        return {name for name, each in {"host": self.host, **others}.items() if each.has(mark)}


def discovery(guest: Place, message: bytes, source: str = "0.0.0.0", ether: str | None = None) -> bytes:
    """The frame in which a client without an address sends a DHCP message."""
    packet = frames.ipv4(source, "255.255.255.255", frames.UDP, frames.udp(68, 67, message))
    return frames.ethernet(ether or guest.mac, frames.BROADCAST, frames.IPV4, packet)


@asynccontextmanager
async def bed(home: Path, network_xml: str = NETWORK) -> AsyncIterator[Bed]:
    """`network_xml`: libvirt's network `default`."""
    async with own_libvirt(home) as own:
        connection = libvirt.open(own.uri)
        network = connection.networkLookupByName("default")
        network.destroy()
        network.undefine()
        connection.networkDefineXML(network_xml)
        networks.activate(connection, "default")
        with ExitStack() as stack:
            stack.callback(connection.close)
            enter = own.inside
            found = Bed(own, stack, connection, Place(enter, None, "", HOST), HostNames(home))  # type: ignore[arg-type]
            found.host.agent = found.watch(enter, BRIDGE)
            [bridge] = json.loads(found.host.run("ip", "-j", "link", "show", "dev", BRIDGE))
            found.host.mac = bridge["address"]
            found.host.run("nsenter", "--mount", f"--target={own.holder}", "mount", "-t", "sysfs", "sysfs", "/sys")
            yield found
