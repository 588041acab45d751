"""`nebula up --listen` on another address, and hosts that join it: all over TLS, in processes of their own."""

import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench import homes
from node_daemon.membership.credentials import Files
from runtime.local.child import free_port
from tests.cli.conftest import environment

ADDRESS = "127.0.0.2"


@dataclass(frozen=True)
class Listening:
    home: Path
    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"https://{ADDRESS}:{self.port}"

    def nebula(self, *arguments: str, home: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", *arguments]
        settings = environment(home or self.home, **more)
        return subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=120)

    def json(self, *arguments: str) -> Any:
        ran = self.nebula(*arguments, "--output", "json")
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def token(self, node: str, *options: str) -> dict[str, Any]:
        found: dict[str, Any] = self.json("node", "token", node, *options)
        return found


def until(check: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def listening() -> Iterator[Listening]:
    with homes.home("listen") as home:
        (home / "nats.port").write_text(str(free_port()))
        (home / "nats.port").chmod(0o600)
        port = free_port()
        command = [sys.executable, "-m", "cli.main", "up", "--listen", ADDRESS]
        settings = environment(home, HTTP_PORT=str(port), NODE="n1", NODE_TIMEOUT="5", NODE_CREDENTIAL_HOURS="0.005")
        with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            try:
                said = []
                for line in child.stdout:
                    said.append(line)
                    if line.startswith("ready"):
                        break
                assert said[-1].startswith("ready"), "".join(said)
                yield Listening(home, port, child)
            finally:
                child.terminate()
                child.stdout.read()


@contextmanager
def joined_node(platform: Listening, home: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """`nebula node` on the home of another host. It knows the platform only by what it got when it joined."""
    settings = environment(home, REGION="away", HEARTBEAT_SECONDS="0.5", **more)
    log = (home / "node.log").open("w")
    with subprocess.Popen([sys.executable, "-m", "cli.main", "node"], env=settings, stderr=log, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture
def other() -> Iterator[Path]:
    with homes.home("joined") as home:
        yield home


def status_of(platform: Listening, node: str) -> str | None:
    found = {each["id"]: each["status"] for each in platform.json("node", "list")["items"]}
    return found.get(node)


def test_the_first_node_works_and_all_is_encrypted(listening: Listening) -> None:
    assert status_of(listening, "n1") == "ready"
    bus = int((listening.home / "nats.port").read_text())
    for port, first in ((listening.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), (bus, b"CONNECT {}\r\nPING\r\n")):
        with socket.create_connection((ADDRESS, port), timeout=10) as plain:
            plain.settimeout(10)
            plain.sendall(first)
            answer = b""
            while part := plain.recv(4096):
                answer += part
        assert b"HTTP/1.1 2" not in answer and b"PONG" not in answer
    for port in (listening.port, bus):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_host_joins_and_runs_a_vm(listening: Listening, other: Path) -> None:
    made = listening.token("n2")
    wrong = f"sha256:{'0' * 64}"
    refused = listening.nebula("node", "join", made["url"], made["token"], "--ca-fingerprint", wrong, home=other)
    assert refused.returncode == 1 and "was not sent" in refused.stderr, refused.stderr
    joined = listening.nebula(*made["command"].split()[1:], home=other)
    assert joined.returncode == 0, joined.stderr
    for path in Files(other).folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or path.name == "ca.pem", path
    seed = Files(other).seed()
    with joined_node(listening, other):
        until(lambda: status_of(listening, "n2") == "ready", "n2 is ready")
        image = listening.home / "images" / "blank.img"
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(b"\xfa\xf4".ljust(510, b"\0") + b"\x55\xaa" + b"\0" * (1024 * 1024 - 512))
        ran = listening.nebula("image", "register", str(image), "--name", "blank")
        assert ran.returncode == 0, ran.stderr
        created = listening.nebula(
            *("vm", "create", "away-1", "--image", "blank", "--region", "away"),
            *("--vcpus", "1", "--memory", "512", "--disk", "1", "--timeout", "60"),
        )
        assert created.returncode == 0, created.stderr + (other / "node.log").read_text()[-3000:]
        before = Files(other).held()
        assert before is not None
        # Its credential is valid for 18 seconds: it is renewed while the node works.
        until(lambda: (Files(other).held() or before).received_at > before.received_at, "it is renewed")
        assert status_of(listening, "n2") == "ready"
        assert Files(other).seed() == seed
    for file in (listening.home / "log").rglob("*.log"):
        text = file.read_text(errors="replace")
        assert made["token"] not in text and seed not in text, file


def test_a_token_is_used_once(listening: Listening, other: Path) -> None:
    made = listening.token("n3")
    command = made["command"].split()[1:]
    assert listening.nebula(*command, home=other).returncode == 0
    assert listening.nebula(*command, home=other).returncode == 1, "the key of the first join is not pending any more"
    with homes.home("thief") as thief:
        second = listening.nebula(*command, home=thief)
        assert second.returncode == 1 and "used already" in second.stderr, second.stderr


def test_a_host_that_joined_as_one_node_is_no_other(listening: Listening, other: Path) -> None:
    made = listening.token("n4")
    assert listening.nebula(*made["command"].split()[1:], home=other).returncode == 0
    with joined_node(listening, other, NODE="n5") as child:
        assert child.wait(60) == 2
    assert "joined as node n4" in (other / "node.log").read_text()


def test_a_token_of_another_node_and_of_nobody(listening: Listening, other: Path) -> None:
    made = listening.token("n6")
    pin = ("--ca-fingerprint", made["ca_fingerprint"])
    renamed = made["token"].replace("nbj_n6_", "nbj_n7_")
    invented = f"nbj_n6_{secrets.token_urlsafe(32)}"
    for token in (renamed, invented):
        ran = listening.nebula("node", "join", made["url"], token, *pin, home=other)
        assert ran.returncode == 1 and "not valid for node" in ran.stderr, ran.stderr
    assert listening.nebula(*made["command"].split()[1:], home=other).returncode == 0


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("http://192.0.2.1:8700", (), "clear text"),
        ("http://127.0.0.1:9", ("--ca-fingerprint", f"sha256:{'0' * 64}"), "https://"),
        ("https://127.0.0.1:9", ("--ca-fingerprint", "abc"), "fingerprint"),
    ],
)
def test_the_token_is_not_sent_where_others_could_read_it(
    listening: Listening, other: Path, url: str, options: tuple[str, ...], says: str
) -> None:
    token = f"nbj_n1_{secrets.token_urlsafe(32)}"
    ran = listening.nebula("node", "join", url, token, *options, home=other)
    assert ran.returncode == 2 and says in ran.stderr, ran.stderr
