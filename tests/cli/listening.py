"""A platform of `nebula up --listen` on another address, and hosts that join it: all over TLS."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import homes
from runtime.local.child import free_port
from tests.cli.conftest import environment

ADDRESS = "127.0.0.2"


@dataclass(frozen=True)
class Listening:
    home: Path
    port: int
    process: subprocess.Popen[str]
    address: str = ADDRESS

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"

    def nebula(
        self, *arguments: str, home: Path | None = None, within: Sequence[str] = (), **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command. `within`: the command that runs it on another host."""
        command = [*within, sys.executable, "-m", "cli.main", *arguments]
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


@contextmanager
def listening_platform(address: str = ADDRESS) -> Iterator[Listening]:
    """The platform, whose nodes have credentials of 18 seconds."""
    with homes.home("listen") as home:
        (home / "nats.port").write_text(str(free_port()))
        (home / "nats.port").chmod(0o600)
        port = free_port()
        command = [sys.executable, "-m", "cli.main", "up", "--listen", address]
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
                yield Listening(home, port, child, address)
            finally:
                child.terminate()
                child.stdout.read()


@contextmanager
def joined_node(
    platform: Listening, home: Path, within: Sequence[str] = (), **more: str
) -> Iterator[subprocess.Popen[str]]:
    """`nebula node` on the home of another host. It knows the platform only by what it got when it joined."""
    command = [*within, sys.executable, "-m", "cli.main", "node"]
    settings = environment(home, REGION="away", HEARTBEAT_SECONDS="0.5", **more)
    log = (home / "node.log").open("w")
    with subprocess.Popen(command, env=settings, stderr=log, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def status_of(platform: Listening, node: str) -> str | None:
    found = {each["id"]: each["status"] for each in platform.json("node", "list")["items"]}
    return found.get(node)


def register_blank(platform: Listening) -> None:
    """An image without an operating system."""
    image = platform.home / "images" / "blank.img"
    image.parent.mkdir(exist_ok=True)
    image.write_bytes(b"\xfa\xf4".ljust(510, b"\0") + b"\x55\xaa" + b"\0" * (1024 * 1024 - 512))
    ran = platform.nebula("image", "register", str(image), "--name", "blank")
    assert ran.returncode == 0, ran.stderr


def create(platform: Listening, name: str, region: str) -> str:
    """The id of a new VM in a region. Its image is blank."""
    size = ("--vcpus", "1", "--memory", "512", "--disk", "1")
    ran = platform.nebula("vm", "create", name, "--image", "blank", "--region", region, *size, "--timeout", "60")
    assert ran.returncode == 0, ran.stderr
    found: str = platform.json("vm", "show", name)["id"]
    return found
