"""The neighbour table of a real kernel, in a network namespace with two bridges."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

OWN, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
#: The host has these addresses on its bridges.
BRIDGES = {"br0": ("192.0.2.1/24", "2001:db8::1/64"), "br1": ("198.51.100.1/24", "2001:db8:1::1/64")}


class Host:
    """A namespace with the neighbours that a test sets."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, *argv: str) -> str:
        command = ["ip", "netns", "exec", self.name, *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def used(self, *asked: tuple[str, str]) -> list[str]:
        """For each client and address of the host, the MAC addresses."""
        code = f"from projections.guest_data.neighbours import of\nfor each in {asked!r}: print(*sorted(of(*each)))"
        return self.run(sys.executable, "-c", code).splitlines()

    def neighbour(self, address: str, mac: str, bridge: str, state: str = "stale") -> None:
        self.run("ip", "neigh", "replace", address, "lladdr", mac, "dev", bridge, "nud", state)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    made = Host(f"nbn{os.getpid()}")
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        for bridge, addresses in BRIDGES.items():
            made.run("ip", "link", "add", bridge, "type", "bridge")
            for address in addresses:
                made.run("ip", "address", "add", address, "dev", bridge, *(["nodad"] if ":" in address else []))
            made.run("ip", "link", "set", bridge, "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", made.name], check=True)


def test_only_the_network_of_the_servers_address_counts(host: Host) -> None:
    """A machine of another network has this address, too, or takes the MAC address of a guest."""
    host.neighbour("192.0.2.10", OWN, "br0")
    host.neighbour("192.0.2.10", OTHER, "br1")
    host.neighbour("192.0.2.11", OWN, "br1")
    asked = [("192.0.2.10", "192.0.2.1"), ("192.0.2.10", "198.51.100.1"), ("192.0.2.11", "192.0.2.1")]
    assert host.used(*asked) == [OWN, OTHER, ""]


def test_both_versions_of_ip(host: Host) -> None:
    host.neighbour("2001:db8::10", OWN, "br0")
    host.neighbour("2001:db8::10", OTHER, "br1")
    asked = [("2001:db8::10", "2001:db8::1"), ("2001:db8::10", "2001:db8:1::1"), ("2001:db8::10", "192.0.2.1")]
    assert host.used(*asked) == [OWN, OTHER, ""]


def test_who_has_not_answered_has_no_address(host: Host) -> None:
    host.neighbour("192.0.2.12", OWN, "br0", "failed")
    host.neighbour("192.0.2.13", OWN, "br0", "noarp")
    asked = [("192.0.2.12", "192.0.2.1"), ("192.0.2.13", "192.0.2.1"), ("192.0.2.14", "192.0.2.1"), ("x", "192.0.2.1")]
    assert host.used(*asked) == ["", "", "", ""]


def test_a_large_table_is_read_completely(host: Host) -> None:
    """The kernel sends it in several messages."""
    many = "".join(
        f"neigh replace 192.0.2.{last} lladdr 52:54:00:00:01:{last:02x} dev br0\n" for last in range(20, 250)
    )
    subprocess.run(["ip", "netns", "exec", host.name, "ip", "-batch", "-"], input=many, text=True, check=True)
    assert host.used(("192.0.2.249", "192.0.2.1")) == ["52:54:00:00:01:f9"]
