"""A hostile guest at the data source, or another user of the host: with a stolen secret, or many connections."""

import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from domain.contract.guest_data import GuestSeed
from tests.attacks.bed import HOST, SEED, Bed, Guest, Place, bed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")

#: A second listener, for addresses of both versions of IP.
BOTH = 8776
ALL = ("meta-data", "user-data", "vendor-data", "network-config")

#: Sends bytes, and prints the status and the body of the answer.
EXCHANGE = """
import socket, sys
link = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
link.sendall(bytes.fromhex(sys.argv[3]))
link.shutdown(socket.SHUT_WR)
got = b""
while part := link.recv(65536):
    got += part
print(got.decode(errors="replace"))
"""
#: Opens many connections, and does not finish its requests on them.
HOLD = """
import socket, sys, time
links = []
for _ in range(int(sys.argv[3])):
    link = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    link.sendall(b"GET / HTTP/1.1\\r\\nX: ")
    links.append(link)
print("holds", flush=True)
sys.stdin.readline()
"""


@dataclass
class Scene:
    bed: Bed
    owner: Guest
    thief: Guest
    process: Any
    secrets: dict[str, str]

    @property
    def stolen(self) -> str:
        return self.secrets["owner"]

    def ask(self, who: Place, path: str, *more: str, port: int = SEED, body: str = "", line: str | None = None) -> str:
        """The status and the body of an answer."""
        method = "POST" if body else "GET"
        head = [line or f"{method} {path} HTTP/1.1", f"Host: {HOST}:{port}", f"Content-Length: {len(body)}", *more]
        sent = "\r\n".join([*head, "", body]).encode().hex()
        answer = who.python(EXCHANGE, HOST, str(port), sent).stdout
        top, _, rest = answer.partition("\r\n\r\n")
        return f"{top.split(' ')[1] if ' ' in top else 'nothing'} {rest.strip()}"


def seed(guest: Guest) -> str:
    made = GuestSeed(
        project=guest.project, vm=guest.vm, mac=guest.mac, meta_data=f"instance-id: {guest.vm}\n", user_data=b"secret"
    )
    return made.model_dump_json()


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with bed(tmp_path_factory.mktemp("attacks") / "libvirt") as made:
        owner, thief = await made.guest("owner", "a"), await made.guest("thief", "a")
        made.protect(f"http://{HOST}:{BOTH}/")
        secrets = {"owner": "O" * 32, "thief": "T" * 32}
        for guest in (owner, thief):
            await made.lease(guest)
        seeds = json.dumps({secrets["owner"]: json.loads(seed(owner)), secrets["thief"]: json.loads(seed(thief))})
        inside = (*made.host.enter, "--mount")
        processes = []
        for address, port in ((HOST, SEED), ("::", BOTH)):
            process = made.start(inside, sys.executable, "-m", "tests.attacks.serving", address, str(port), seeds)
            assert process.stdout is not None
            assert process.stdout.readline() == "listens\n"
            processes.append(process)
        yield Scene(made, owner, thief, processes[0], secrets)


def test_a_stolen_secret_is_worth_nothing(scene: Scene) -> None:
    unknown = scene.ask(scene.thief, f"/{'U' * 32}/meta-data")
    assert unknown.startswith("404 ")
    for name in ALL:
        assert scene.ask(scene.owner, f"/{scene.stolen}/{name}").startswith("200 "), name
        for who in (scene.thief, scene.bed.host):
            assert scene.ask(who, f"/{scene.stolen}/{name}") == unknown, name
    for who in (scene.thief, scene.bed.host):
        assert scene.ask(who, f"/{scene.stolen}/phone-home", body=f"instance_id={scene.owner.vm}") == unknown


def test_no_header_makes_a_guest_another_one(scene: Scene) -> None:
    unknown, address = scene.ask(scene.thief, f"/{'U' * 32}/meta-data"), scene.owner.ip
    path = f"/{scene.stolen}/meta-data"
    headers = (
        *(f"X-Forwarded-For: {address}", f"Forwarded: for={address}", f"X-Real-IP: {address}", f"Via: 1.1 {address}"),
        *(
            f"Client-IP: {address}",
            f"True-Client-IP: {address}",
            f"CF-Connecting-IP: {address}",
            f"X-Client: {address}",
        ),
        *("X-Forwarded-Host: 127.0.0.1", "Connection: X-Forwarded-For", f"Authorization: Bearer {scene.stolen}"),
    )
    for header in headers:
        assert scene.ask(scene.thief, path, header) == unknown, header
    for line in (f"GET http://{address}{path} HTTP/1.1", f"GET http://{HOST}{path} HTTP/1.0", f"GET /{path} HTTP/1.1"):
        assert not scene.ask(scene.thief, path, line=line).startswith("200"), line
    proxied = f"PROXY TCP4 {address} {HOST} 1234 {SEED}\r\nGET {path} HTTP/1.1"
    assert not scene.ask(scene.thief, path, line=proxied).startswith("200")
    assert scene.ask(scene.owner, path).startswith("200 ")


def test_an_ipv4_address_in_ipv6_is_the_same_address(scene: Scene) -> None:
    assert scene.ask(scene.owner, f"/{scene.stolen}/meta-data", port=BOTH).startswith("200 ")
    assert scene.ask(scene.thief, f"/{scene.stolen}/meta-data", port=BOTH).startswith("404 ")


def test_a_guest_calls_once_and_for_itself(scene: Scene) -> None:
    path, call = f"/{scene.secrets['thief']}/phone-home", f"instance_id={scene.thief.vm}&boot_id=b-1"
    assert scene.ask(scene.thief, path, body=call).startswith("200 ")
    assert scene.ask(scene.thief, path, body=call).startswith("200 "), "it did not get the answer"
    assert scene.ask(scene.thief, path, body=f"{call}&hostname=other").startswith("409 ")
    assert scene.ask(scene.owner, f"/{scene.stolen}/phone-home", body=f"instance_id={scene.owner.vm}").startswith("200")
    passed: list[dict[str, str]] = []
    while len(passed) < 2:
        if (line := scene.process.stdout.readline()).startswith('{"call"'):
            passed.append(json.loads(line))
        assert line
    assert passed == [{"call": each.vm, "as": each.vm} for each in (scene.thief, scene.owner)]


def test_many_slow_connections_of_a_guest_keep_no_other_guest_out(scene: Scene) -> None:
    holding = scene.bed.start(scene.thief.enter, sys.executable, "-c", HOLD, HOST, str(SEED), "100")
    assert holding.stdout is not None
    assert holding.stdout.readline() == "holds\n"
    assert scene.ask(scene.owner, f"/{scene.stolen}/meta-data").startswith("200 ")
    assert not scene.ask(scene.thief, f"/{scene.secrets['thief']}/meta-data").startswith("200 "), "it has had its share"
    holding.kill()


@pytest.mark.parametrize(
    "header", ["User-Agent: " + "a" * 20_000, "Cookie: " + "a=b; " * 5_000, "\r\n".join(["X: a"] * 300)]
)
def test_what_is_too_large_is_refused_and_others_are_served(scene: Scene, header: str) -> None:
    answer = scene.ask(scene.thief, f"/{scene.secrets['thief']}/meta-data", header)
    assert answer.split(" ")[0] in ("431", "nothing")
    assert scene.ask(scene.owner, f"/{scene.stolen}/meta-data").startswith("200 ")
