"""Another user of the machine (`nobody`) against a platform of `nebula up`: every port and every file.

The test looks for the ports and files itself, so that new ones are tried as well.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.local.child import command_line
from runtime.settings.node import NodeSettings
from tests.e2e.platform import Platform, platform

ROLES = ("nats", "postgres", "handlers", "projections", "guest-data", "gateway", "node")
LISTEN = "0A"
#: The port of a node's metrics, if no other node of this machine has it.
METRICS = NodeSettings.model_fields["metrics_port"].default

#: Becomes nobody. Prints what each port answered to each of the openings, and the files that it could read or write.
ATTACK = r"""
import json, os, socket, struct, sys

b"".decode("latin-1"), "x".encode("idna"), json.dumps({})  # what is imported late, while it can be read
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
ports = [int(port) for port in sys.argv[1].split(",")]
startup = b"\0\x03\0\0user\0nebula\0database\0nebula\0\0"
OPENINGS = {
    "nats": b'CONNECT {"verbose":true,"pedantic":false,"headers":true,"no_responders":true}\r\nSUB > 1\r\nPING\r\n',
    "nats_user": b'CONNECT {"verbose":true,"user":"nebula","pass":"nebula"}\r\nSUB > 1\r\nPING\r\n',
    "varz": b"GET /connz?subs=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "jsz": b"GET /jsz?streams=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "api": b"GET /v1/projects HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "metrics": b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "seed": b"GET /x/user-data HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "postgres": struct.pack("!i", len(startup) + 4) + startup,
}


def said(port, opening):
    found = b""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.settimeout(2)
            sock.sendall(opening)
            while len(found) < 100_000 and (part := sock.recv(65536)):
                found += part
    except OSError as error:
        found += b" <" + type(error).__name__.encode() + b">"
    return found.decode("latin-1")


def opened(path):
    how = []
    for flag, name in ((os.O_RDONLY, "read"), (os.O_WRONLY, "write")):
        try:
            os.close(os.open(path, flag | os.O_NONBLOCK))
            how.append(name)
        except OSError:
            pass
    return how


files = {}
for path in sys.stdin.read().splitlines():
    if os.path.isdir(path):
        try:
            os.listdir(path)
            files[path] = ["list"]
        except OSError:
            pass
        if os.access(path, os.W_OK):
            files.setdefault(path, []).append("make")
    elif how := opened(path):
        files[path] = how
json.dump({"ports": {port: {name: said(port, text) for name, text in OPENINGS.items()} for port in ports},
           "files": files}, sys.stdout)
"""


VM = {"name": "victim", "image": "blank", "vcpus": 1, "memory_mib": 64, "disk_gib": 1, "user_data": "#cloud-config\n"}


@pytest.fixture(scope="module", params=[{"NEBULA_SIMULATE": "1"}, {}], ids=["simulated", "qemu"])
async def cloud(request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    """A platform with a VM that runs."""
    async with platform(**request.param) as made:
        await made.blank_image()
        await made.succeed("POST", "/v1/projects/default/vms", VM)
        yield made


def listening(pids: set[int]) -> dict[int, str]:
    """The ports on which these processes listen, with the name of a process."""
    inodes: dict[str, int] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTEN:
                inodes[words[9]] = int(words[1].rsplit(":", 1)[1], 16)
    found = {}
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except FileNotFoundError:  # closed meanwhile
                continue
            if target.startswith("socket:[") and target[8:-1] in inodes:
                found[inodes[target[8:-1]]] = Path(f"/proc/{pid}/comm").read_text().strip()
    return found


def guests(cloud: Platform) -> set[int]:
    """The processes of QEMU."""
    running = {int(folder.name): command_line(int(folder.name)) for folder in Path("/proc").glob("[0-9]*")}
    home = str(cloud.home)
    found = {pid for pid, words in running.items() if words and "qemu" in words[0] and home in " ".join(words)}
    assert found or "NEBULA_SIMULATE" in cloud.settings
    return found


def as_nobody(ports: list[int], paths: list[Path]) -> dict[str, dict[str, dict[str, str]]]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", ATTACK, ",".join(map(str, ports))],
        input="\n".join(map(str, paths)),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, dict[str, str]]] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_of_the_machine_can_do_nothing(cloud: Platform) -> None:
    pids = {cloud.pid(role) for role in ROLES} | guests(cloud)
    ports = listening(pids)
    assert {cloud.port, cloud.seed_port} <= ports.keys()
    assert len(ports) >= 4
    paths = [path for path in cloud.home.rglob("*") if not path.is_symlink()]
    paths = [path for path in paths if path.name != "blank.raw"]
    assert len(paths) > 20
    if "NEBULA_SIMULATE" not in cloud.settings:
        assert [path for path in paths if path.parent == cloud.home / "node" / "images"], "QEMU reads an image"
    found = await asyncio.to_thread(as_nobody, sorted(ports), paths)

    assert found["files"] == {}, "no file can be read or written, and no folder listed"
    for port, answers in found["ports"].items():
        where = f"{ports[int(port)]} on {port}"
        for opening in ("nats", "nats_user"):
            answer = answers[opening]
            assert "PONG" not in answer, where
            assert "MSG " not in answer, where
        for opening in ("varz", "jsz", "metrics", "api"):
            # how many answers guests got, and no name; what guests use, by their ids (SECURITY.md)
            if opening == "metrics" and int(port) in (cloud.seed_port, METRICS):
                continue
            assert " 200 " not in answers[opening].split("\r\n", 1)[0], f"{opening} of {where}"
            assert "NEBULA_" not in answers[opening], where
        assert " 200 " not in answers["seed"].split("\r\n", 1)[0], where
        assert not answers["postgres"].startswith("R\0\0\0\x08\0\0\0\0"), f"{where} lets anybody in"
    admitted = {port for port, answers in found["ports"].items() if answers["nats"].startswith("INFO ")}
    assert len(admitted) == 1, "the bus was tried"
    assert "Authorization Violation" in found["ports"][admitted.pop()]["nats"]


async def test_other_users_see_no_secret_in_the_arguments_of_processes(cloud: Platform) -> None:
    secrets = [path.read_text().strip() for path in cloud.home.rglob("*") if is_secret(path)]
    assert secrets
    for role in ROLES:
        words = Path(f"/proc/{cloud.pid(role)}/cmdline").read_text()
        assert not [secret for secret in secrets if secret in words], role
        status = Path(f"/proc/{cloud.pid(role)}/environ").stat()
        assert status.st_mode & 0o077 == 0, role


def is_secret(path: Path) -> bool:
    return path.is_file() and path.suffix in (".password", ".token", ".key", ".creds", ".keys", ".nk")
