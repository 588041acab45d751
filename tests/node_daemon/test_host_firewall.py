"""The host's firewall against guests: network namespaces on a bridge, with the rules of the real programs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from node_daemon.hypervisor.host_names import HostNames
from node_daemon.hypervisor.hypervisor import Refused
from node_daemon.network.host_firewall import bus_addresses, numbers
from runtime.settings import NodeSettings

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

#: The port of the metrics of a node.
METRICS = NodeSettings.model_fields["metrics_port"].default
HOST, SEED, BUS_HOST = "192.0.2.1", 8775, "198.51.100.1"
#: The VM, project and address of each guest; and the guest of another node on the same host.
GUESTS = {"one": ("a", "192.0.2.11"), "two": ("a", "192.0.2.12"), "three": ("b", "192.0.2.13")}
OTHER, OTHER_ADDRESS = "four", "192.0.2.14"
#: The data folders of the two nodes. Both exist.
OWN, OTHERS = "/var/tmp", "/var/lib"

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
HEAR = """
import socket
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("", 9))
link.settimeout(1.0)
print("listens", flush=True)
try:
    print(link.recvfrom(9)[1][0])
except TimeoutError:
    print("nothing")
"""
SEND = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"said", (sys.argv[1], 9))
"""
FIREWALL = """
import json, sys, uvloop
from pathlib import Path
from node_daemon.network import host_firewall
from node_daemon.hypervisor.guest_network import GuestNetwork
from node_daemon.hypervisor.host_names import HostNames
from runtime import logs
async def main():
    names = HostNames(Path(sys.argv[1]))
    told = lambda *what: print("told", *what, sep="|")
    leases = {}
    async def network():
        return GuestNetwork(leases=leases)
    firewall = host_firewall.HostFirewall(names, network, [("198.51.100.1", 4222)], dropped=told)
    for line in sys.stdin:
        guests, seeds, macs, addresses = json.loads(line)
        leases.update(addresses)
        firewall._checked -= host_firewall.CHECK_SECONDS
        if seeds:
            async with firewall.starting("nobody", "52:54:00:00:00:01", "a", seeds[0]):
                pass
        await firewall.keep(guests, seeds, macs)
        print("done", flush=True)
    await firewall.close()
uvloop.run(main())  # as the roles do
"""


@dataclass
class Net:
    """A host with a bridge and three guests, each in a namespace; and another host, on which the bus is."""

    name: str
    stack: ExitStack
    firewalls: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)

    def inside(self, where: str, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.name}-{where}", *argv]

    def run(self, where: str, *argv: str) -> str:
        return subprocess.run(self.inside(where, *argv), check=True, capture_output=True, text=True).stdout

    def reaches(self, where: str, address: str, port: int) -> bool:
        command = self.inside(where, sys.executable, "-c", CONNECT, address, str(port))
        return subprocess.run(command, check=False).returncode == 0

    def reached(self, *asked: tuple[str, str, int]) -> list[bool]:
        """The same for many at a time, since what is dropped is waited for."""
        with ThreadPoolExecutor(len(asked)) as pool:
            return list(pool.map(lambda each: self.reaches(*each), asked))

    def hears(self, where: str, sender: str, source: str) -> bool:
        """Whether a guest gets a datagram of another one, or of the host."""
        child = self.start(where, HEAR)
        assert child.stdout is not None
        assert child.stdout.readline() == "listens\n"
        self.run(sender, sys.executable, "-c", SEND, GUESTS[where][1])
        return child.stdout.readline() == f"{source}\n"

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

    def macs(self, *guests: str) -> dict[str, str]:
        return {each: self.run(each, "cat", "/sys/class/net/eth0/address").strip() for each in guests}

    def keep(
        self, guests: dict[str, str], *seeds: str, folder: str = OWN, macs: dict[str, str] | None = None
    ) -> list[str]:
        """Let the firewall of a node daemon keep its rules; what it says."""
        if folder not in self.firewalls:
            self.firewalls[folder] = self.start("host", FIREWALL, folder)
        child = self.firewalls[folder]
        assert child.stdin is not None and child.stdout is not None
        addresses = {vm: address for vm, (_, address) in GUESTS.items()} | {OTHER: OTHER_ADDRESS}
        leases = {addresses[vm]: mac for vm, mac in self.macs(*guests).items()}
        urls = seeds or [f"http://{HOST}:{SEED}/secret/"]
        child.stdin.write(json.dumps([guests, urls, self.macs(*guests) if macs is None else macs, leases]) + "\n")
        child.stdin.flush()
        said: list[str] = []
        while (line := child.stdout.readline()) not in ("done\n", ""):
            said.append(line)
        assert line == "done\n", said
        return said

    def kill(self, folder: str = OWN) -> None:
        child = self.firewalls.pop(folder)
        child.kill()
        child.wait()

    def end(self, folder: str) -> None:
        """End the daemon of this folder as SIGTERM does."""
        child = self.firewalls.pop(folder)
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait() == 0

    def plug(self, vm: str, tap: str, address: str) -> None:
        """Connect the namespace of a guest to the bridge."""
        self.run("host", "ip", "link", "add", tap, "type", "veth", "peer", "eth0", "netns", f"{self.name}-{vm}")
        self.run("host", "ip", "link", "set", tap, "master", "br0", "up")
        self.run(vm, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.run(vm, "ip", "link", "set", "eth0", "up")
        self.run(vm, "ip", "route", "add", "default", "via", HOST)

    def rules(self) -> str:
        lists: tuple[str, ...] = (
            "iptables -S",
            "iptables -t mangle -S",
            "ip6tables -S",
            "ip6tables -t mangle -S",
            "ebtables -t filter -L",
        )
        tables = self.run("host", *["nft", "list", "tables", "bridge"]).splitlines()
        lists += tuple(f"nft -s list {table}" for table in tables if "nebula-" in table)
        return "\n".join(self.run("host", *each.split()) for each in lists)


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    made = Net(f"nbt{os.getpid()}", ExitStack())
    name = made.name

    def ip(*argv: str) -> None:
        subprocess.run(["ip", *argv], check=True)

    with made.stack as stack:
        for where in ("host", "bus", *GUESTS, OTHER):
            ip("netns", "add", f"{name}-{where}")
            stack.callback(subprocess.run, ["ip", "netns", "del", f"{name}-{where}"], check=False)
            made.run(where, "ip", "link", "set", "lo", "up")
        made.run("host", "ip", "link", "add", "br0", "type", "bridge")
        made.run("host", "ip", "address", "add", f"{HOST}/24", "dev", "br0")
        made.run("host", "ip", "link", "set", "br0", "up")
        made.run("host", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0")
        for vm, (_, address) in GUESTS.items():
            made.plug(vm, tap_name(vm), address)
            made.listen(vm, 80)
        made.plug(OTHER, HostNames(Path(OTHERS)).tap(OTHER), OTHER_ADDRESS)
        made.listen(OTHER, 80)
        made.run("host", "ip", "link", "add", "up0", "type", "veth", "peer", "eth0", "netns", f"{name}-bus")
        made.run("host", "ip", "address", "add", "198.51.100.2/24", "dev", "up0")
        made.run("host", "ip", "link", "set", "up0", "up")
        made.run("bus", "ip", "address", "add", f"{BUS_HOST}/24", "dev", "eth0")
        made.run("bus", "ip", "link", "set", "eth0", "up")
        made.run("bus", "ip", "route", "add", "default", "via", "198.51.100.2")
        made.listen("bus", 4222, 443)
        made.listen("host", SEED, 8776, 53, 4222, 5432, 8700, METRICS)
        yield made


def tap_name(vm: str) -> str:
    return HostNames(Path(OWN)).tap(vm)


def projects() -> dict[str, str]:
    return {vm: project for vm, (project, _) in GUESTS.items()}


def test_without_it_all_is_open(net: Net) -> None:
    assert net.reaches("one", HOST, 5432)
    assert net.reaches("one", GUESTS["three"][1], 80)
    assert net.reaches("one", BUS_HOST, 4222)


def test_of_the_host_a_guest_reaches_dns_and_the_data_source(net: Net) -> None:
    net.keep(projects())
    ports = (SEED, 53, 4222, 5432, 8700, 8776, METRICS)
    *found, elsewhere = net.reached(*(("one", HOST, port) for port in ports), ("one", "198.51.100.2", SEED))
    assert found == [True, True, False, False, False, False, False]
    assert not elsewhere, "only at the address of the data source"
    assert net.reaches("host", GUESTS["one"][1], 80), "the host's own connections go on"
    assert net.reaches("bus", HOST, 5432), "others are not guests"
    assert net.reaches("bus", HOST, METRICS), "an operator may let Prometheus in"


def test_a_guest_reaches_its_project_and_no_other(net: Net) -> None:
    net.keep(projects())
    two, three = GUESTS["two"][1], GUESTS["three"][1]
    assert net.reached(("one", two, 80), ("one", three, 80), ("three", two, 80)) == [True, False, False]
    for here, there in (("one", "three"), ("three", "one")):  # by way of the host, which routes between them
        net.run(here, "ip", "route", "add", f"{GUESTS[there][1]}/32", "via", HOST)
    try:
        assert not net.reaches("one", GUESTS["three"][1], 80)
    finally:
        for here, there in (("one", "three"), ("three", "one")):
            net.run(here, "ip", "route", "del", f"{GUESTS[there][1]}/32")


def test_elsewhere_only_the_bus_is_closed(net: Net) -> None:
    net.keep(projects())
    assert net.reached(("one", BUS_HOST, 4222), ("one", BUS_HOST, 443)) == [False, True]


def test_what_is_denied_is_counted_and_logged(net: Net) -> None:
    net.keep(projects())
    assert not net.reaches("one", HOST, 5432)
    assert not net.reaches("one", GUESTS["three"][1], 80)
    said = " ".join(net.keep(projects()))
    assert "packets of guests to what they must not reach were dropped" in said
    assert "iptables" in said and "nftables bridge" in said


def test_it_is_known_which_guest_was_denied(net: Net) -> None:
    """Also what a guest sent before it ended, and not twice."""
    macs = net.macs("one", "two")
    net.keep(projects(), macs=macs)
    assert not net.reaches("one", HOST, 5432)
    told = [
        line.strip().split("|")[1:] for line in net.keep(projects(), macs=net.macs("two")) if line.startswith("told|")
    ]
    assert {vm for place, vm, _ in told if place == "iptables"} == {"one"}, told
    assert all(int(packets) > 0 for *_, packets in told)
    said = net.keep(projects(), macs=net.macs("two"))
    assert not [line for line in said if line.startswith("told|iptables|")], said
    assert not net.reaches("one", HOST, 5432)
    said = net.keep(projects(), macs=net.macs("two"))
    assert [line for line in said if line.startswith("told|iptables|None|")], "an unknown address is of no VM"


def test_it_is_repaired_and_leaves_the_rules_of_others(net: Net) -> None:
    net.keep(projects())
    net.run("host", "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "DROP")
    net.run("host", "ebtables", "-A", "FORWARD", "-i", "foreign0", "-j", "DROP")
    before = net.rules()
    net.keep(projects())
    assert net.rules() == before, "nothing is made twice"
    names = HostNames(Path(OWN))
    net.run("host", "iptables", "-F", names.chain("HOST"))
    net.run("host", "iptables", "-D", "INPUT", "1")
    net.run("host", "iptables", "-t", "mangle", "-F", names.chain("HOST"))
    net.run("host", "nft", "delete", "table", "bridge", f"nebula-{names.word}")
    assert net.reaches("one", HOST, 5432)
    net.keep(projects())
    assert not net.reaches("one", HOST, 5432)
    assert net.reaches("one", GUESTS["two"][1], 80)
    assert not net.reaches("one", GUESTS["three"][1], 80)
    for foreign in ("--dport 9 -j DROP", "-i foreign0 -j DROP"):
        assert net.rules().count(foreign) == 1


def test_another_process_of_the_daemon_continues(net: Net) -> None:
    net.keep(projects())
    net.kill()
    net.keep(projects(), f"http://{HOST}:8776/secret/")
    places = ((HOST, SEED), (HOST, 8776), (HOST, 5432), (GUESTS["two"][1], 80), (GUESTS["three"][1], 80))
    assert net.reached(*(("one", *place) for place in places)) == [False, True, False, True, False]
    assert net.rules().count(f"chain sends-{tap_name('one')} ") == 1


def test_rules_of_others_that_come_first_are_passed(net: Net) -> None:
    net.keep(projects())
    places = (
        *("iptables % INPUT", "iptables % FORWARD", "iptables -t mangle % PREROUTING"),
        *("ebtables % FORWARD", "ebtables -t nat % PREROUTING"),
    )
    for place in places:
        net.run("host", *place.replace("%", "-I").split(), "-j", "ACCEPT")
    try:
        assert net.reaches("one", HOST, 5432)
        net.keep(projects())
        asked = (("one", HOST, 5432), ("one", BUS_HOST, 4222), ("one", GUESTS["three"][1], 80))
        assert net.reached(*asked) == [False, False, False]
    finally:
        for argv in (
            "iptables -D INPUT",
            "iptables -D FORWARD",
            "ebtables -D FORWARD",
            "ebtables -t nat -D PREROUTING",
        ):
            net.run("host", *argv.split(), "-j", "ACCEPT")


def test_ports_of_containers_are_ports_of_the_host(net: Net) -> None:
    """Programs for containers translate addresses of the host, and set marks, before the last judgement."""
    net.keep(projects())
    to = f"{BUS_HOST}:443"
    rules = (
        ("-d", HOST, "-p", "tcp", "--dport", "8081", "-j", "DNAT", "--to-destination", to),
        ("-d", HOST, "-p", "tcp", "--dport", "5432", "-j", "MARK", "--set-mark", "0x4000"),
    )
    for rule in rules:
        net.run("host", "iptables", "-t", "nat", "-A", "PREROUTING", *rule)
    try:
        assert net.reaches("bus", HOST, 5432), "others reach it"
        assert net.reached(("one", HOST, 8081), ("one", HOST, 5432)) == [False, False]
        net.run("host", "iptables", "-t", "mangle", "-F", HostNames(Path(OWN)).chain("HOST"))
        assert net.reached(("one", HOST, 8081), ("one", HOST, 5432)) == [True, True], "the test can fail"
        net.keep(projects())
        assert net.reached(("one", HOST, 8081), ("one", HOST, 5432)) == [False, False]
    finally:
        net.run("host", "iptables", "-t", "nat", "-F", "PREROUTING")


@pytest.mark.parametrize("bridged", [False, True], ids=["routed", "bridged"])
def test_others_may_take_the_marks_of_packets_away(net: Net, bridged: bool) -> None:
    """As wg-quick does with datagrams. With br_netfilter, iptables sees what crosses the bridge, too."""
    net.keep(projects())
    clear = "iptables -t mangle % PREROUTING -p udp -j MARK --set-mark 0"
    way = f"ip route % {GUESTS['three'][1]}/32 via {HOST}"
    if bridged:
        clear = "ebtables -t nat % PREROUTING -p IPv4 --ip-proto udp -j mark --mark-set 0"
        way = f"ip neigh % {GUESTS['three'][1]} dev eth0 lladdr {net.macs('three')['three']}"
    net.run("host", *clear.replace("%", "-A").split())
    net.run("one", *way.replace("%", "replace").split())
    try:
        assert net.hears("three", "host", HOST), "the test can fail"
        assert not net.hears("three", "one", GUESTS["one"][1])
        if bridged:
            assert net.hears("two", "one", GUESTS["one"][1]), "guests of a project reach each other"
    finally:
        net.run("host", *clear.replace("%", "-D").split())
        net.run("one", *way.replace("%", "del").split())


def test_a_rule_that_was_replaced_is_noticed(net: Net) -> None:
    net.keep(projects())
    chain = HostNames(Path(OWN)).chain("HOST")
    for table in ("filter", "mangle"):
        rule = ("-p", "tcp", "--dport", "5432", "-j", "ACCEPT")
        net.run("host", "iptables", "-t", table, "-R", chain, "2", *rule)
    assert net.reaches("one", HOST, 5432)
    said = " ".join(net.keep(projects()))
    assert "the rules of the host's firewall were changed" in said
    assert not net.reaches("one", HOST, 5432)


def test_two_nodes_of_one_host_do_not_disturb_each_other(net: Net) -> None:
    """Each has its own data source. Their guests count as other projects, also if the projects have one id."""
    net.kill()  # what it has opened before stays open
    net.keep(projects())
    net.keep({OTHER: "a"}, f"http://{HOST}:8776/secret/", folder=OTHERS)
    before = net.rules()
    net.keep(projects())
    net.keep({OTHER: "a"}, f"http://{HOST}:8776/secret/", folder=OTHERS)
    assert net.rules() == before
    asked = {
        **{("one", HOST, SEED): True, ("one", HOST, 8776): False, ("one", HOST, 5432): False},
        **{(OTHER, HOST, SEED): False, (OTHER, HOST, 8776): True, (OTHER, HOST, 5432): False},
        **{
            ("one", GUESTS["two"][1], 80): True,
            ("one", OTHER_ADDRESS, 80): False,
            (OTHER, GUESTS["one"][1], 80): False,
        },
    }
    assert dict(zip(asked, net.reached(*asked), strict=True)) == asked
    word = HostNames(Path(OTHERS)).word
    net.end(OTHERS)
    assert word in net.rules(), "its guest runs, so it stays closed"
    assert not net.reaches(OTHER, HOST, 5432)
    net.run("host", "ip", "link", "del", HostNames(Path(OTHERS)).tap(OTHER))
    net.keep({}, f"http://{HOST}:8776/secret/", folder=OTHERS)
    net.end(OTHERS)
    assert word not in net.rules(), "it leaves nothing"
    assert net.reaches("one", GUESTS["two"][1], 80)
    assert not net.reaches("one", HOST, 5432)


def test_a_guest_may_start_after_its_daemon_has_ended(net: Net, tmp_path: Path) -> None:
    """libvirt carries out what the daemon asked for before its end."""

    code = f"""
import asyncio, contextlib, sys
from pathlib import Path
from node_daemon.hypervisor.guest_network import GuestNetwork
from node_daemon.hypervisor.hypervisor import Refused
from node_daemon.network.host_firewall import HostFirewall
from node_daemon.hypervisor.host_names import HostNames
async def main(error):
    async def network():
        return GuestNetwork()
    firewall = HostFirewall(HostNames(Path({str(tmp_path)!r})), network)
    with contextlib.suppress(error):
        async with firewall.starting("vm", "52:54:00:00:00:01", "a", "http://{HOST}:{SEED}/"):
            raise error("start")
    await firewall.close()
asyncio.run(main({{"unknown": TimeoutError, "refused": Refused}}[sys.argv[1]]))
"""
    word = HostNames(tmp_path).word
    net.run("host", sys.executable, "-c", code, "unknown")
    assert word in net.rules()
    net.run("host", sys.executable, "-c", code, "refused")
    assert word not in net.rules()


def test_what_a_killed_platform_left_is_removed_by_the_next(net: Net, open_folder: Path) -> None:
    words = []
    for name in ("gone", "kept"):
        folder = open_folder / name
        folder.mkdir()
        net.keep({}, folder=str(folder))
        net.kill(str(folder))
        words.append(HostNames(folder).word)
    (open_folder / "gone").rmdir()
    assert all(word in net.rules() for word in words)
    net.kill()
    net.keep(projects())
    assert [word in net.rules() for word in words] == [False, True]


def test_the_address_of_a_data_source_may_be_a_name(net: Net) -> None:
    net.keep(projects(), "http://localhost:8700/secret/")
    assert "-d 127.0.0.1/32 -p tcp -m tcp --dport 8700 -j ACCEPT" in net.rules()


def test_a_guest_without_rules_reaches_nobody_and_a_removed_one_leaves_none(net: Net) -> None:
    net.kill()
    net.run("host", "nft", "delete", "table", "bridge", f"nebula-{HostNames(Path(OWN)).word}")
    net.keep({"one": "a", "three": "b"})
    assert not net.reaches("one", GUESTS["two"][1], 80)
    net.keep(projects())
    assert net.reaches("one", GUESTS["two"][1], 80)
    net.run("host", "ip", "link", "del", tap_name("two"))
    net.keep({"one": "a", "three": "b"})
    assert tap_name("two") not in net.rules()


def test_each_project_has_its_own_number_and_keeps_it() -> None:
    first = numbers(["a", "b", "a"], {})
    assert set(first) == {"a", "b"} and first["a"] != first["b"]
    assert numbers(["b", "c"], {**first, "x": 7})["b"] == first["b"]
    many = numbers([f"p{number}" for number in range(4095)], {})
    assert len(set(many.values())) == 4095 and min(many.values()) == 1 and max(many.values()) == 4095
    with pytest.raises(Refused, match="4095 projects"):
        numbers([f"p{number}" for number in range(4096)], {})


def test_a_new_project_gets_no_number_of_running_guests() -> None:
    """After a start of the daemon, guests run whose projects it does not know yet."""
    [number] = numbers(["a"], {}).values()
    assert numbers(["a"], {}, {number})["a"] != number
    assert numbers(["a"], {"a": number}, {number}) == {"a": number}
    with pytest.raises(Refused, match="4095 projects"):
        numbers(["a"], {}, set(range(1, 4096)))


def test_the_addresses_of_the_bus() -> None:
    assert bus_addresses("nats://192.0.2.5:4333,tls://192.0.2.6") == [("192.0.2.5", 4333), ("192.0.2.6", 4222)]
    assert bus_addresses("nats://no-such-host.invalid:4222,nats://[2001:db8::1]:4222") == [("2001:db8::1", 4222)]
