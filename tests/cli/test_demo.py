"""`nebula demo`: all its steps on a simulated node, with guest and host asked there; and how it fails.

`make demo` shows the same on QEMU, where the guest is asked over SSH.
"""

import os
import shlex
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from pydantic import TypeAdapter

from cli.client.errors import CliError
from cli.demo.demo import play
from cli.demo.demo_guest import Guest
from cli.demo.demo_host import Traces
from cli.demo.demo_steps import BOOT_ID, STEPS, Demo, DemoSettings
from node_daemon.simulation.host_store import HostStore
from node_daemon.simulation.simulated_host import DOMAIN, Domain, Run
from node_daemon.simulation.simulated_storage import DISK
from node_daemon.simulation.simulator import address_of
from runtime.files.files import put
from runtime.local.child import free_port
from tests.cli.conftest import environment, is_ours
from tests.node_daemon.documents import boot_disk

NODE = "sim-001"
#: A guest has no address yet when its restart has succeeded.
SECONDS = '{"image": 0, "boot": 0, "lease": 0.5, "shutdown": 0.1}'


@dataclass(frozen=True)
class Host:
    """What a simulated node remembers."""

    host_store: HostStore

    def run(self, vm: str) -> Run | None:
        body = self.host_store.all(NODE, DOMAIN).get(vm)
        return TypeAdapter(Domain).validate_json(body).run if body is not None else None

    def traces(self, uri: str, vm: str) -> Traces:
        run = self.run(vm)
        assert run is not None
        return SimulatedTraces(vm, uri, Path("disk"), Path("console"), Path("seed"), self)


@dataclass(frozen=True)
class SimulatedTraces(Traces):
    node: Host

    @property
    def domain(self) -> bool:
        return self.vm in self.node.host_store.all(NODE, DOMAIN)

    @property
    def has_disk(self) -> bool:
        return self.vm in self.node.host_store.all(NODE, DISK)

    @property
    def has_seed(self) -> bool:
        return self.has_disk

    def last_words(self, lines: int) -> list[str]:
        """What the commands of the user-data write to the serial port."""
        run = self.node.run(self.vm)
        assert run is not None
        commands = [shlex.split(command) for *_, command in user_data(run.seed_url)["runcmd"]]
        return [" ".join(said) for echo, *said, to, port in commands if (echo, to, port) == ("echo", ">", "/dev/ttyS0")]


@dataclass(frozen=True)
class SimulatedGuest(Guest):
    """Does as its user-data says, and answers at its address, as soon as this boot has one."""

    node: Host = field(kw_only=True)

    def run(self, address: str, command: str) -> str:
        for vm in self.node.host_store.all(NODE, DOMAIN):
            run = self.node.run(vm)
            if run is not None and address_of(vm) == address and run.leased_at <= time.time():
                if command == BOOT_ID:
                    return f"{vm} {run.tag.boots}"
                files = {file["path"]: file["content"] for file in user_data(run.seed_url)["write_files"]}
                return str(files[command.removeprefix("cat ")]).strip()
        raise CliError(f"nobody answers at {address}")


def own_nats_port(home: Path) -> None:
    """Or two platforms that start at the same time both take 4222."""
    put(home / "nats.port", str(free_port()))


def user_data(seed_url: str) -> Any:
    with urlopen(f"{seed_url}user-data", timeout=10) as answer:
        return yaml.safe_load(answer.read())


def test_all_steps_on_a_simulated_node(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own_nats_port(home)
    image = home / "image.raw"
    image.write_bytes(boot_disk())
    for name in [name for name in os.environ if name.startswith("NEBULA_")]:
        monkeypatch.delenv(name)
    for name, value in environment(home, SIMULATE="1", SIMULATE_SECONDS=SECONDS, DEMO_IMAGE=str(image)).items():
        monkeypatch.setenv(name, value)
    (home / "simulated-sim").mkdir()
    node = Host(HostStore(home / "simulated-sim" / "hosts.sqlite"))
    with ExitStack() as stack:
        play(Demo(DemoSettings(), stack, partial(SimulatedGuest, node=node), node.traces))
    told = capsys.readouterr().out
    assert [title for title, _ in STEPS if f"] {title}\n" not in told] == []
    assert told.count("done in ") == len(STEPS)
    assert "it answers again" in told
    node.host_store.close()


def test_a_bad_image_ends_it_and_nothing_stays(home: Path) -> None:
    own_nats_port(home)
    image = home / "image.qcow2"
    image.write_text("no image")
    settings = environment(home, DEMO_IMAGE=str(image))
    command = [sys.executable, "-m", "cli.main", "demo"]
    ended = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "[ 3/12] Create a project and register the image" in ended.stdout
    assert "FAILED" in ended.stdout
    assert "(image_invalid)" in ended.stdout
    assert "[ 4/12]" not in ended.stdout
    assert ended.stderr.endswith("error: failed at step 3, Create a project and register the image\n")
    processes = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    assert not any(is_ours(pid, home) for pid in processes)
