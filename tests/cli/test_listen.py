"""`nebula up --listen` on another address, and hosts that join it: all over TLS, in processes of their own."""

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import homes
from node_daemon.membership.credentials import Files
from runtime.tls.authority import ensure_authority
from tests.cli.listening import (
    ADDRESS,
    Listening,
    create,
    joined_node,
    listening_platform,
    register_blank,
    status_of,
    until,
)


@pytest.fixture(scope="module")
def listening() -> Iterator[Listening]:
    with listening_platform() as made:
        yield made


@pytest.fixture
def other() -> Iterator[Path]:
    with homes.home("joined") as home:
        yield home


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
        register_blank(listening)
        create(listening, "away-1", "away")
        before = Files(other).held()
        assert before is not None
        # Its credential is valid for 18 seconds: it is renewed while the node works.
        until(lambda: (Files(other).held() or before).received_at > before.received_at, "it is renewed")
        assert status_of(listening, "n2") == "ready"
        assert Files(other).seed() == seed
    for file in (listening.home / "log").rglob("*.log"):
        text = file.read_text(errors="replace")
        assert made["token"] not in text and seed not in text, file


def test_commands_of_the_operator_use_the_bus_and_trust_one_authority(listening: Listening, other: Path) -> None:
    assert listening.json("verify", "log")["findings"] == []
    ensure_authority(other)
    ran = listening.nebula("verify", "log", NATS_CA=str(other / "ca.pem"))
    assert ran.returncode == 1 and "is not trusted" in ran.stderr, ran.stderr


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
