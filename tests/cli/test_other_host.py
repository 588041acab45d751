"""Another host, in a network namespace: it joins over the network, and reaches no port but those of API and bus."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import homes
from node_daemon.membership.credentials import Files
from runtime.bus.accounts import credentials
from runtime.bus.guest_credentials import GuestFiles
from tests.cli.conftest import environment
from tests.cli.listening import Listening, create, joined_node, listening_platform, register_blank, status_of, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

#: The port of guest-data, in the namespace.
SEED_PORT = "8775"
#: Prints those ports of an address to which a connection is opened.
REACHES = """
import socket, sys
for port in sys.argv[2:]:
    try:
        socket.create_connection((sys.argv[1], int(port)), 2).close()
        print(port)
    except OSError:
        pass
"""


@dataclass(frozen=True)
class Network:
    """A link between this host, which has `here`, and the namespace of the other one."""

    namespace: str
    here: str

    @property
    def within(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.namespace)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    number = os.getpid()
    name, link, peer = f"nebula-other-{number}", f"nbo{number}", f"nbp{number}"
    subnet = f"10.{200 + number // 256 % 50}.{number % 256}"
    ip("netns", "add", name)
    try:
        ip("link", "add", link, "type", "veth", "peer", "name", peer, "netns", name)
        ip("address", "add", f"{subnet}.1/24", "dev", link)
        ip("link", "set", link, "up")
        for words in (("address", "add", f"{subnet}.2/24", "dev", peer), ("link", "set", peer, "up")):
            ip("-n", name, *words)
        ip("-n", name, "link", "set", "lo", "up")
        yield Network(name, f"{subnet}.1")
    finally:
        ip("netns", "delete", name)  # and the link with it


@pytest.fixture(scope="module")
def listening(network: Network) -> Iterator[Listening]:
    with listening_platform(network.here) as made:
        yield made


@pytest.fixture
def other() -> Iterator[Path]:
    with homes.home("joined") as home:
        yield home


def bus_port(platform: Listening) -> int:
    return int((platform.home / "nats.url").read_text().rsplit(":", 1)[1])


def listeners() -> set[str]:
    """The TCP ports on which any process of this host listens."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {str(int(words[1].rsplit(":", 1)[1], 16)) for words in lines if words[3] == "0A"}


def ours(platform: Listening) -> set[str]:
    """The ports that the platform has: in its files, and in the environment of a role."""
    gateway = int((platform.home / "run" / "gateway.pid").read_text())
    found = Path(f"/proc/{gateway}/environ").read_text()
    named = re.search(r"NEBULA_PLATFORM_PORTS=([0-9,]+)", found)
    assert named is not None
    return set(named[1].split(","))


@contextmanager
def guest_data(home: Path, network: Network) -> Iterator[Path]:
    """`nebula guest-data` of the other host, which has nothing but what it got when it joined. Yields its log."""
    home.chmod(0o711)
    command = [*network.within, sys.executable, "-m", "cli.main", "guest-data"]
    settings, log = environment(home, SEED_HOST="127.0.0.1", SEED_PORT=SEED_PORT), home / "guest-data.log"
    with log.open("w") as out, subprocess.Popen(command, env=settings, stderr=out) as child:
        try:
            yield log
        finally:
            child.kill()


def healthy(network: Network) -> bool:
    """Whether guest-data of the other host says that the projections answer it."""
    ask = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{SEED_PORT}/healthz', timeout=5)"
    command = [*network.within, sys.executable, "-c", ask]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_it_reaches_the_api_and_the_bus_and_nothing_else(listening: Listening, network: Network) -> None:
    ports = ours(listening)
    assert ports <= listeners() and len(ports) >= 4, ports
    command = [*network.within, sys.executable, "-c", REACHES, network.here, *ports]
    reached = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert set(reached) == {str(listening.port), str(bus_port(listening))}


def test_it_gets_nothing_from_the_bus_without_a_credential(listening: Listening, network: Network, other: Path) -> None:
    settings = {
        "NATS_URL": f"tls://{network.here}:{bus_port(listening)}",
        "NATS_CA": str(listening.home / "tls" / "ca.pem"),
    }
    ran = listening.nebula("verify", "log", "--no-key", home=other, within=network.within, **settings)
    assert ran.returncode == 1 and "it needs a credential" in ran.stderr, ran.stderr
    settings |= {"NATS_USER": "nebula", "NATS_PASSWORD": "nebula"}
    ran = listening.nebula("verify", "log", "--no-key", home=other, within=network.within, **settings)
    assert ran.returncode == 1 and "refuses the connection" in ran.stderr, ran.stderr


def test_it_joins_and_runs_a_vm(listening: Listening, network: Network, other: Path) -> None:
    made = listening.token("n2")
    assert made["url"] == f"https://{network.here}:{listening.port}"
    joined = listening.nebula(*made["command"].split()[1:], home=other, within=network.within)
    assert joined.returncode == 0, joined.stderr
    held = Files(other).held()
    assert held is not None and held.signed and held.encrypted
    register_blank(listening)
    with joined_node(listening, other, network.within):
        until(lambda: status_of(listening, "n2") == "ready", "n2 is ready")
        create(listening, "away-1", "away")
        until(lambda: (Files(other).held() or held).received_at > held.received_at, "its credential is renewed")
        with guest_data(other, network) as log:
            until(lambda: healthy(network), "its guest-data reaches the projections")
            began = credentials.read(GuestFiles(other).creds).expires or 0
            until(lambda: time.time() > began and healthy(network), "it goes on with the next credential")
            assert listening.nebula("node", "revoke", "n2").returncode == 0
            until(lambda: "revoked" in (other / "node.log").read_text(), "it is cut off")
            until(lambda: "revoked" in log.read_text(), "so is its guest-data")
        again = listening.nebula(*made["command"].split()[1:], home=other, within=network.within)
        assert again.returncode == 1 and "used already" in again.stderr, again.stderr
