"""`nebula up` with real servers, on libvirt's own test driver; and the files of its home."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.local import home as homes
from domain.contract.joining import Joined
from node_daemon.membership.credentials import Files
from runtime.local.child import ServerError, free_port
from runtime.local.servers import start_nats
from runtime.token_text import split
from tests.cli.conftest import environment, is_ours


@contextmanager
def up(home: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A `nebula up`, ended at the end if it has not ended by then."""
    command = [sys.executable, "-m", "cli.main", "up"]
    port = home / "nats.port"
    if not port.exists():
        port.write_text(str(free_port()))  # or two that start at the same time both take 4222
        port.chmod(0o600)
    with subprocess.Popen(command, env=environment(home, **more), stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.terminate()
            assert child.stdout is not None
            child.stdout.read()


def told(child: subprocess.Popen[str]) -> list[str]:
    """What it says, up to the line that it is ready (or to its end)."""
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(line.rstrip())
        if line.startswith("ready"):
            break
    return lines


#: What QEMU and Postgres, as users of their own, have to reach below a home.
PASSED_THROUGH = ("node", "postgres")


def open_to_others(home: Path) -> list[str]:
    """The files of a home that others can read or write, and the folders that they can list."""
    found = []
    for path in home.rglob("*"):
        if path.relative_to(home).parts[0] not in PASSED_THROUGH and not path.is_socket():
            mode = path.lstat().st_mode & 0o077
            found += [f"{path} {mode:o}"] if mode & ~(0o011 if path.is_dir() else 0) else []
    return found


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(each) for each in found.split()]


def nebula(home: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", "--url", url, *arguments]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("new_interpreters")
def test_a_platform_by_one_command_that_survives_sigkill(home: Path) -> None:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    metrics = str(free_port())
    with up(home, HTTP_PORT=port, METRICS_PORT=metrics) as first:
        lines = told(first)
        whats = [line.split()[0] for line in lines]
        roles = ["gateway", "projections", "handlers", "guest-data", "node"]
        assert whats == ["Nebula", "nats", "postgres", "libvirt", *roles, "console", "metrics", "ready"]
        shown = httpx.get(lines[-2].split()[1])
        assert str(shown.url) == f"http://127.0.0.1:{metrics}/metrics"
        assert {each.name for each in text_string_to_metric_families(shown.text)} >= {"libvirt_up", "nebula_node_cpus"}
        assert nebula(home, url, "project", "list").stdout.splitlines()[1].startswith("default")
        assert open_to_others(home) == []

        with up(home) as second:
            told(second)
            assert second.wait() == 1

        assert nebula(home, url, "tag", "create", "before").returncode == 0
        left = children(first.pid)
        assert len(left) == 8, "two servers, five roles, and the process that forks roles"
        first.kill()
        first.wait()

    with up(home, HTTP_PORT=port) as again:
        assert told(again)[-1].startswith("ready")
        assert not any(is_ours(pid, home) for pid in left), "no server or role of the killed one runs beside ours"
        assert "before" in nebula(home, url, "tag", "list").stdout
        assert nebula(home, url, "tag", "create", "after").returncode == 0
        mine = children(again.pid)
        again.send_signal(signal.SIGINT)
        assert again.wait() == 0
        assert again.stdout is not None
        last = "stopping; guests keep running\n"
        assert again.stdout.read().partition(last)[1:] == (last, "")
    assert not any(is_ours(pid, home) for pid in mine)


def test_a_platform_of_simulated_nodes_needs_no_libvirt(home: Path) -> None:
    with up(home, SIMULATE="3", LIBVIRT_URI="qemu+unix:///system?socket=/nonexistent") as running:
        lines = told(running)
        assert [line.split()[0] for line in lines if not line.startswith(" ")][-3:] == ["node", "console", "ready"]
        assert not any(line.startswith("libvirt") for line in lines)
        url = next(line.split()[1] for line in lines if line.startswith("gateway"))
        assert "sim-00" in nebula(home, url, "node", "list").stdout
        assert (home / "seed.url").read_text().startswith("http://127.0.0.1:")


def test_a_server_that_ends_is_started_again(home: Path) -> None:
    with up(home) as running:
        url = next(line.split()[1] for line in told(running) if line.startswith("gateway"))
        assert running.stdout is not None
        os.kill(int((home / "nats.pid").read_text()), signal.SIGKILL)
        while "nats" not in running.stdout.readline():
            pass
        created = nebula(home, url, "tag", "create", "blue")
        assert created.returncode == 0, created.stderr


def test_a_taken_port_is_told_in_one_line(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "cli.main", "up"]
        settings = environment(home, HTTP_PORT=str(port))
        ended = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"error: 127.0.0.1:{port} is in use: set NEBULA_HTTP_PORT to a free port\n"


def test_all_bad_settings_are_told_before_anything_starts(home: Path) -> None:
    settings = environment(home, HTTP_PORT="x", VCPU_RATIO="-1")
    command = [sys.executable, "-m", "cli.main", "up"]
    ended = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "NEBULA_HTTP_PORT" in ended.stderr
    assert "NEBULA_VCPU_RATIO" in ended.stderr
    assert list(home.iterdir()) == []


def test_only_one_at_a_time(home: Path) -> None:
    with homes.locked(home), pytest.raises(ServerError, match=str(os.getpid())), homes.locked(home):
        pass
    with homes.locked(home):
        pass


def test_a_home_of_an_earlier_version_is_closed(home: Path) -> None:
    """Its log files, the event log and the keys in it were for all to read."""
    own = ["admin.token", "tokens", "master.key", "checkpoint.pub", "postgres.gateway.password", "nats.port", "up.lock"]
    for name in (*own, "log/handlers.log.1", "nats/jetstream/1.blk", "run/node.pid", "image-store/x", "images/i.raw"):
        (home / name).parent.mkdir(exist_ok=True, parents=True)
        (home / name).write_text("1")
    with homes.locked(home):
        found = {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()}
    assert {found[name] for name in own} == {0o600}
    assert {found[name] for name in ("log", "nats", "run", "image-store")} == {0o700}
    assert (found["images"], home.stat().st_mode & 0o777) == (0o755, 0o755), "which others have to pass through"


def test_tokens_are_made_once(home: Path) -> None:
    listed = homes.tokens_file(home)
    token = (home / "admin.token").read_text().strip()
    assert split(token) is not None
    assert token not in listed.read_text()
    assert listed.read_text().startswith("admin ")
    homes.tokens_file(home)
    assert (home / "admin.token").read_text().strip() == token


async def test_the_nats_port_is_remembered_while_it_is_free(home: Path) -> None:
    remembered = free_port()
    (home / "nats.port").write_text(str(remembered))
    assert homes.nats_port(home) == remembered
    server = await start_nats(home, port=remembered)
    try:
        assert homes.nats_port(home) != remembered
    finally:
        await server.stop()


def refused(home: Path, *options: str, **more: str) -> str:
    """What `nebula up` says when it does not start."""
    command = [sys.executable, "-m", "cli.main", "up", *options]
    ended = subprocess.run(command, env=environment(home, **more), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert not (home / "nats").exists()
    return ended.stderr


def test_the_home_of_a_node_of_another_platform_is_not_used(home: Path) -> None:
    """Its node would be that one, with a credential of this platform."""
    files = Files(home)
    joined = Joined(node="n2", credential="", expires_at=2, now=1, nats_url="tls://10.0.0.1:4222", nats_ca="")
    files.store(joined, files.pending("0" * 64).seed, "https://10.0.0.1:8700", joined.nats_url)
    said = refused(home)
    assert said.startswith(f"error: the home {home} is that of node n2 of the platform https://10.0.0.1:8700"), said
    assert str(files.folder) in said


def test_an_address_of_another_host_is_named(home: Path) -> None:
    assert refused(home, "--listen", "192.0.2.1") == "error: this host has no address 192.0.2.1\n"


def test_a_log_in_an_account_is_not_shown_as_empty(home: Path) -> None:
    (home / "bus" / "keys").mkdir(parents=True)
    said = refused(home, SIMULATE="1", BUS_ACCOUNTS="false")
    assert said == f"error: the log of {home} is in an account of the bus: unset NEBULA_BUS_ACCOUNTS\n"
