"""Projects, tags, images, nodes and operations, against a real platform (on libvirt's own test driver)."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench import homes
from tests.cli.conftest import environment
from tests.cli.test_up import told, up
from tests.projections.cloud import KEY


class Cli:
    """`nebula` towards one platform."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", "--url", self.url, *arguments]
        settings = environment(self.home)
        return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)

    def json(self, *arguments: str) -> Any:
        ran = self.run(*arguments, "--output", "json")
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def refusal(self, *arguments: str) -> str:
        ran = self.run(*arguments)
        assert ran.returncode == 1, ran.stdout
        assert ran.stdout == ""
        return ran.stderr


@pytest.fixture(scope="module")
def real() -> Iterator[Cli]:
    with homes.home("cli") as home, up(home) as running:
        yield Cli(home, next(line.split()[1] for line in told(running) if line.startswith("gateway")))


def test_who_one_is(real: Cli) -> None:
    assert real.json("whoami")["roles"] == [{"role": "operator", "project": None}]
    assert "roles       operator\n" in real.run("whoami").stdout


def test_projects(real: Cli) -> None:
    assert real.json("project", "create", "My Team", "--id", "team")["project"]["name"] == "My Team"
    assert real.json("tag", "create", "blue")["tag"]["id"] == "blue"
    assert real.json("project", "rename", "team", "Our Team")["project"]["name"] == "Our Team"
    assert real.json("project", "tag", "team", "blue")["project"]["tags"] == ["blue"]
    keys = ["--ssh-key", f"ssh-ed25519 {KEY} ada", "--ssh-key", f"ssh-ed25519 {KEY} bob"]
    assert real.json("project", "ssh-keys", "team", *keys)["project"]["ssh_keys"] == [keys[1], keys[3]]
    assert real.json("project", "ssh-keys", "team")["project"]["ssh_keys"] == []
    assert real.json("project", "create", "Keyed", *keys[:2])["project"]["ssh_keys"] == [keys[1]]
    assert real.run("project", "delete", "keyed").stdout == "project keyed: deleted\n"
    assert "team" in [project["id"] for project in real.json("project", "list")["items"]]
    assert "(tag_in_use)" in real.refusal("tag", "delete", "blue")
    assert real.json("project", "tag", "team")["project"]["tags"] == []
    assert real.json("tag", "rename", "blue", "Navy")["tag"]["name"] == "Navy"
    assert real.run("tag", "delete", "blue").stdout == "tag blue: deleted\n"
    assert real.run("project", "delete", "team").stdout == "project team: deleted\n"
    assert "(project_deleted)" in real.refusal("project", "show", "team")


def test_usage(real: Cli) -> None:
    at = real.json("project", "create", "Used")["project"]["position"]
    assert real.run("project", "usage", "used").stdout.splitlines() == [
        "USAGE     VMS  VCPUS  MEMORY  DISK",
        "in use    0    0      0 MiB   0 GiB",
        "promised  0    0      0 MiB   0 GiB",
    ]
    nothing = {"vms": 0, "vcpus": 0, "memory_mib": 0, "disk_gib": 0}
    then = {"project": "used", "in_use": nothing, "promised": nothing, "position": at}
    assert real.json("project", "usage", "used", "--at", str(at)) == then
    assert "(project_not_found)" in real.refusal("project", "usage", "used", "--at", str(at - 1))


def test_one_key_makes_one_project(real: Cli) -> None:
    first = real.json("project", "create", "once", "--key", "k")
    again = real.json("project", "create", "once", "--key", "k")
    assert first["operation"]["id"] == again["operation"]["id"]
    assert "(idempotency_key_reused)" in real.refusal("project", "create", "twice", "--key", "k")


def test_images(real: Cli) -> None:
    file = real.home / "images" / "disk.img"
    file.parent.mkdir()
    file.write_bytes(b"\0" * 510 + b"\x55\xaa")
    assert real.json("image", "register", str(file))["image"]["phase"] == "available"
    told = real.json(
        "image", "register", str(file), "--id", "efi", "--firmware", "uefi", "--seed", "disk", "--fetch", "source"
    )["image"]
    assert (told["firmware"], told["seed"], told["fetch"]) == ("uefi", "disk", "source")
    assert real.run("image", "delete", "efi").returncode == 0
    refusal = real.refusal("image", "register", str(file), "--id", "other", "--sha256", "0" * 64)
    assert "\n  sha256: " in refusal
    assert [image["id"] for image in real.json("image", "list")["items"]] == ["disk", "other"]
    assert real.run("image", "delete", "disk").returncode == 0


def test_images_are_imported_from_urls(real: Cli) -> None:
    folder = real.home / "web"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(b"\0" * 510 + b"\x55\xaa")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        said = ("--distribution", "tests", "--release", "1.0", "--private", "--project", "default")
        made = real.json("image", "import", "web", "--from", f"{url}/disk.raw", *said)
        assert "(image_missing)" in real.refusal("image", "import", "none", "--from", f"{url}/none")
        server.shutdown()
    assert made["operation"]["progress"] == {"bytes_done": 512, "bytes_total": 512}
    image = made["image"]
    assert (image["phase"], image["distribution"], image["project"]) == ("available", "tests", "default")
    assert image["sha256"] == hashlib.sha256((folder / "disk.raw").read_bytes()).hexdigest()
    assert [found["id"] for found in real.json("image", "list", "--distribution", "tests")["items"]] == ["web"]
    assert real.json("image", "list", "--architecture", "aarch64")["items"] == []
    assert "http(s) URL" in real.run("image", "import", "path", "--from", "/a/path").stderr
    assert real.run("image", "delete", "web").returncode == 0


def test_nodes_and_operations(real: Cli) -> None:
    (node,) = real.json("node", "list")["items"]
    cordoned = real.json("node", "cordon", node["id"])
    assert cordoned["node"]["status"] == "cordoned"
    assert real.json("node", "uncordon", node["id"])["node"]["status"] == "ready"
    assert real.json("operation", "show", cordoned["operation"]["id"])["verb"] == "cordon"
    newest = real.json("operation", "list", "--limit", "1")["items"]
    assert [op["verb"] for op in newest] == ["uncordon"]


def test_the_events_of_it_all(real: Cli) -> None:
    lines = real.run("events", "--kind", "node", "-o", "json").stdout.splitlines()
    types = [json.loads(line)["type"] for line in lines]
    assert types[0] == "nebula.node.NodeRegistered"
    feed = real.run("feed", "--limit", "3", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["prev"] for line in feed] == [0, 1, 2]
    newest = [json.loads(line)["position"] for line in real.run("events", "--newest", "-o", "json").stdout.splitlines()]
    assert newest == list(range(len(newest), 0, -1))
    limited = real.run("events", "--newest", "--limit", "2", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["position"] for line in limited] == newest[:2]
    assert "not both" in real.run("events", "--newest", "--follow").stderr


def test_one_event_of_it_all(real: Cli) -> None:
    found = real.json("event", "1")
    assert (found["position"], found["chain"]["valid"], found["chain"]["mac"]) == (1, True, "right")
    said = real.run("event", "1").stdout
    assert "chain: it is valid\n" in said and "MAC: right\n" in said
    assert "event_not_found" in real.refusal("event", "999999")
    marks = real.json("marks", "--buckets", "5")
    assert sum(item["events"] for item in marks["items"]) == marks["position"]
    assert real.run("marks").stdout.splitlines()[0].split() == ["FROM", "TO", "EVENTS", "FAILURES", "BEGAN"]
