"""The host's firewall against guests: network namespaces on a bridge, with the rules of the real programs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from node_daemon.hypervisor.domain_xml import tap_name
from node_daemon.network.host_firewall import bus_addresses

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

HOST, SEED, BUS_HOST = "192.0.2.1", 8775, "198.51.100.1"
#: The VM, project and address of each guest.
GUESTS = {"one": ("a", "192.0.2.11"), "two": ("a", "192.0.2.12"), "three": ("b", "192.0.2.13")}

LISTEN = """
import socket, sys, select
found = [socket.create_server(("", int(port))) for port in sys.argv[1:]]
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
FIREWALL = """
import json, sys, uvloop
from node_daemon.network import host_firewall
from runtime import logs
async def main():
    firewall = host_firewall.HostFirewall([("198.51.100.1", 4222)])
    for line in sys.stdin:
        guests, seeds = json.loads(line)
        firewall._checked = min(firewall._checked, 0.0)
        if seeds:
            await firewall.prepare(seeds[0])
        await firewall.keep(guests, seeds)
        print("done", flush=True)
uvloop.run(main())  # as the roles do
"""


@dataclass
class Net:
    """A host with a bridge and three guests, each in a namespace; and another host, on which the bus is."""

    name: str
    stack: ExitStack
    firewalls: list["subprocess.Popen[str]"] = field(default_factory=list)

    def inside(self, where: str, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.name}-{where}", *argv]

    def run(self, where: str, *argv: str) -> str:
        return subprocess.run(self.inside(where, *argv), check=True, capture_output=True, text=True).stdout

    def reaches(self, where: str, address: str, port: int) -> bool:
        command = self.inside(where, sys.executable, "-c", CONNECT, address, str(port))
        return subprocess.run(command, check=False).returncode == 0

    def listen(self, where: str, *ports: int) -> None:
        child = self.start(where, LISTEN, *map(str, ports))
        assert child.stdout is not None
        assert child.stdout.readline() == "listens\n"

    def start(self, where: str, program: str, *argv: str) -> "subprocess.Popen[str]":
        command = self.inside(where, sys.executable, "-c", program, *argv)
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.stack.callback(child.wait)
        self.stack.callback(child.kill)
        return child

    def keep(self, guests: dict[str, str], *seeds: str, again: bool = False) -> list[str]:
        """Let the firewall of a node daemon keep its rules; what it says. `again`: another process of the daemon."""
        if again or not self.firewalls:
            self.firewalls.append(self.start("host", FIREWALL))
        child = self.firewalls[-1]
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps([guests, seeds or [f"http://{HOST}:{SEED}/secret/"]]) + "\n")
        child.stdin.flush()
        said: list[str] = []
        while (line := child.stdout.readline()) not in ("done\n", ""):
            said.append(line)
        assert line == "done\n", said
        return said

    def rules(self) -> str:
        lists = ("iptables -S", "ip6tables -S", "ebtables -t nat -L", "ebtables -t filter -L")
        return "\n".join(self.run("host", *each.split()) for each in lists)


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    made = Net(f"nbt{os.getpid()}", ExitStack())
    name = made.name

    def ip(*argv: str) -> None:
        subprocess.run(["ip", *argv], check=True)

    with made.stack as stack:
        for where in ("host", "bus", *GUESTS):
            ip("netns", "add", f"{name}-{where}")
            stack.callback(subprocess.run, ["ip", "netns", "del", f"{name}-{where}"], check=False)
            made.run(where, "ip", "link", "set", "lo", "up")
        made.run("host", "ip", "link", "add", "br0", "type", "bridge")
        made.run("host", "ip", "address", "add", f"{HOST}/24", "dev", "br0")
        made.run("host", "ip", "link", "set", "br0", "up")
        made.run("host", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0")
        for vm, (_, address) in GUESTS.items():
            made.run("host", "ip", "link", "add", tap_name(vm), "type", "veth", "peer", "eth0", "netns", f"{name}-{vm}")
            made.run("host", "ip", "link", "set", tap_name(vm), "master", "br0", "up")
            made.run(vm, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            made.run(vm, "ip", "link", "set", "eth0", "up")
            made.run(vm, "ip", "route", "add", "default", "via", HOST)
            made.listen(vm, 80)
        made.run("host", "ip", "link", "add", "up0", "type", "veth", "peer", "eth0", "netns", f"{name}-bus")
        made.run("host", "ip", "address", "add", "198.51.100.2/24", "dev", "up0")
        made.run("host", "ip", "link", "set", "up0", "up")
        made.run("bus", "ip", "address", "add", f"{BUS_HOST}/24", "dev", "eth0")
        made.run("bus", "ip", "link", "set", "eth0", "up")
        made.run("bus", "ip", "route", "add", "default", "via", "198.51.100.2")
        made.listen("bus", 4222, 443)
        made.listen("host", SEED, 8776, 53, 4222, 5432, 8700)
        yield made


def projects() -> dict[str, str]:
    return {vm: project for vm, (project, _) in GUESTS.items()}


def test_without_it_all_is_open(net: Net) -> None:
    assert net.reaches("one", HOST, 5432)
    assert net.reaches("one", GUESTS["three"][1], 80)
    assert net.reaches("one", BUS_HOST, 4222)


def test_of_the_host_a_guest_reaches_dns_and_the_data_source(net: Net) -> None:
    net.keep(projects())
    found = {port: net.reaches("one", HOST, port) for port in (SEED, 53, 4222, 5432, 8700, 8776)}
    assert found == {SEED: True, 53: True, 4222: False, 5432: False, 8700: False, 8776: False}
    assert not net.reaches("one", "198.51.100.2", SEED), "only at the address of the data source"
    assert net.reaches("host", GUESTS["one"][1], 80), "the host's own connections go on"
    assert net.reaches("bus", HOST, 5432), "others are not guests"


def test_a_guest_reaches_its_project_and_no_other(net: Net) -> None:
    net.keep(projects())
    assert net.reaches("one", GUESTS["two"][1], 80)
    assert not net.reaches("one", GUESTS["three"][1], 80)
    assert not net.reaches("three", GUESTS["two"][1], 80)
    for here, there in (("one", "three"), ("three", "one")):  # by way of the host, which routes between them
        net.run(here, "ip", "route", "add", f"{GUESTS[there][1]}/32", "via", HOST)
    try:
        assert not net.reaches("one", GUESTS["three"][1], 80)
    finally:
        for here, there in (("one", "three"), ("three", "one")):
            net.run(here, "ip", "route", "del", f"{GUESTS[there][1]}/32")


def test_elsewhere_only_the_bus_is_closed(net: Net) -> None:
    net.keep(projects())
    assert not net.reaches("one", BUS_HOST, 4222)
    assert net.reaches("one", BUS_HOST, 443)


def test_what_is_denied_is_counted_and_logged(net: Net) -> None:
    net.keep(projects())
    assert not net.reaches("one", HOST, 5432)
    assert not net.reaches("one", GUESTS["three"][1], 80)
    said = " ".join(net.keep(projects()))
    assert "packets of guests to what they must not reach were dropped" in said
    assert "iptables" in said and "ebtables filter" in said


def test_it_is_repaired_and_leaves_the_rules_of_others(net: Net) -> None:
    net.keep(projects())
    net.run("host", "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")
    net.run("host", "ebtables", "-A", "FORWARD", "-i", "foreign0", "-j", "DROP")
    before = net.rules()
    net.keep(projects())
    assert net.rules() == before, "nothing is made twice"
    net.run("host", "iptables", "-F", "NEBULA-HOST")
    net.run("host", "iptables", "-D", "INPUT", "1")
    net.run("host", "ebtables", "-t", "nat", "-F", "NEBULA-MARKS")
    net.run("host", "ebtables", "-F", "NEBULA-GUESTS")
    assert net.reaches("one", HOST, 5432)
    net.keep(projects())
    assert not net.reaches("one", HOST, 5432)
    assert net.reaches("one", GUESTS["two"][1], 80)
    assert not net.reaches("one", GUESTS["three"][1], 80)
    for foreign in ("--dport 9 -j DROP", "-i foreign0 -j DROP"):
        assert net.rules().count(foreign) == 1


def test_another_process_of_the_daemon_continues(net: Net) -> None:
    net.keep(projects())
    net.keep(projects(), f"http://{HOST}:8776/secret/", again=True)
    assert [net.reaches("one", HOST, port) for port in (SEED, 8776, 5432)] == [True, True, False]
    assert net.reaches("one", GUESTS["two"][1], 80)
    assert not net.reaches("one", GUESTS["three"][1], 80)
    assert net.rules().count(f"-i {tap_name('one')} ") == 1


def test_a_guest_without_rules_reaches_nobody_and_a_removed_one_leaves_none(net: Net) -> None:
    net.keep({"one": "a", "three": "b"})
    assert not net.reaches("one", GUESTS["two"][1], 80)
    net.keep(projects())
    assert net.reaches("one", GUESTS["two"][1], 80)
    net.run("host", "ip", "link", "del", tap_name("two"))
    net.keep({"one": "a", "three": "b"})
    assert tap_name("two") not in net.rules()


def test_the_addresses_of_the_bus() -> None:
    assert bus_addresses("nats://192.0.2.5:4333,tls://192.0.2.6") == [("192.0.2.5", 4333), ("192.0.2.6", 4222)]
    assert bus_addresses("nats://no-such-host.invalid:4222,nats://[2001:db8::1]:4222") == [("2001:db8::1", 4222)]
