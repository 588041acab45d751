"""Retries, exit statuses, and how problems are told."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.main import main
from gateway.http.problems import LOG_UNAVAILABLE
from runtime.local.child import free_port
from tests.cli.conftest import Nebula
from tests.cli.fake import Platform

CREATE = ("vm", "create", "web-1", "--image", "debian-12")


@pytest.mark.parametrize("fault", ["503", "drop", "drop-answer"])
def test_a_command_is_repeated_under_the_same_key_and_happens_once(
    nebula: Nebula, platform: Platform, fault: str
) -> None:
    platform.faults.next.extend([fault, fault])
    ran = nebula(*CREATE)
    assert ran.status == 0
    keys = platform.keys("POST")
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert keys[0]
    assert len(platform.vms) == 1
    assert ran.err.count("trying again with the same key") == 2


def test_each_command_has_a_key_of_its_own(nebula: Nebula, platform: Platform) -> None:
    nebula(*CREATE)
    nebula(*CREATE)
    assert len(set(platform.keys("POST"))) == 2


def test_a_key_of_ones_own_makes_a_second_run_harmless(nebula: Nebula, platform: Platform) -> None:
    assert nebula(*CREATE, "--key", "monday").status == 0
    assert nebula(*CREATE, "--key", "monday").status == 0
    assert platform.keys("POST") == ["monday", "monday"]
    assert len(platform.vms) == 1


def test_retries_are_bounded_and_the_key_is_told(nebula: Nebula, platform: Platform) -> None:
    platform.faults.next.extend(["503"] * 9)
    ran = nebula(*CREATE)
    assert ran.status == 3
    keys = platform.keys("POST")
    assert len(keys) == 6
    assert ran.err.endswith(f"error: {LOG_UNAVAILABLE} (log_unavailable)\nsafe to repeat with --key {keys[0]}\n")
    assert ran.out == ""


def test_whoever_waits_goes_on_over_a_platform_that_is_away_for_long(nebula: Nebula, platform: Platform) -> None:
    away = [*["drop"] * 8, "500", *["503"] * 8, "500"]
    platform.faults.next.extend(["", "", *away])  # the create, the look at the VM; then the wait for the operation
    ran = nebula(*CREATE)
    assert ran.status == 0
    assert not platform.faults.next
    assert ran.err.count("still waiting") == 4
    vm_id = next(iter(platform.vms))
    platform.faults.next.extend(["", *away])  # the look for the id
    assert nebula("vm", "wait", vm_id, "--for", "ready").status == 0


def test_whoever_waits_over_a_platform_that_is_away_does_so_as_long_as_was_asked(
    nebula: Nebula, platform: Platform
) -> None:
    platform.faults.next.extend(["", "", *["503"] * 1000])
    ran = nebula(*CREATE, "--timeout", "0.05")
    assert ran.status == 3
    assert LOG_UNAVAILABLE in ran.err


def test_nobody_there(nebula: Nebula) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ran = nebula("vm", "list", "--url", url)
    assert ran.status == 3
    assert ran.err.endswith(f"error: {url} does not answer: Connection refused\n")


def test_a_refusal_is_told_with_its_fields(nebula: Nebula) -> None:
    ran = nebula("vm", "create", "WEB", "--image", "debian-12", "--key", "k")
    assert ran.status == 1
    assert ran.out == ""
    assert ran.err == (
        "error: name: has to be lower-case letters, digits and inner hyphens, 1 to 63 characters (invalid_request)\n"
        "idempotency key: k\n"
    )


def test_a_read_that_is_refused(nebula: Nebula) -> None:
    ran = nebula("vm", "show", "00000000-0000-4000-8000-000000000000")
    assert ran.status == 1
    assert "(vm_not_found)" in ran.err
    assert "--key" not in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("vm", "creat"),
        ("vm", "create", "web-1"),
        ("vm", "list", "--output", "xml"),
        ("vm", "list", "--url", "nowhere"),
        ("vm", "stop", "00000000-0000-4000-8000-000000000000", "--force", "--grace", "3"),
        ("image", "register", "/does/not/exist"),
    ],
)
def test_wrong_usage(nebula: Nebula, platform: Platform, arguments: tuple[str, ...]) -> None:
    ran = nebula(*arguments)
    assert ran.status == 2
    assert ran.out == ""
    assert not platform.keys("POST")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tag", "delete", "a/b"), "'a/b' cannot be an id"),
        (("project", "delete", ""), "'' cannot be an id"),
        (("parked", "show", "log", "../9"), "'../9' cannot be an id"),
        (("flavor", "show", "\udcff"), "is not text in UTF-8"),
        (("events", "--actor", "\udcff"), "is not text in UTF-8"),
        (("tag", "create", "\udcff"), "is not text in UTF-8"),
        (("vm", "list", "--project", "\udcff"), "is not text in UTF-8"),
    ],
)
def test_what_cannot_be_sent_is_an_error_of_the_caller(
    nebula: Nebula, platform: Platform, arguments: tuple[str, ...], says: str
) -> None:
    """A shell passes bytes that are not UTF-8 as lone surrogates."""
    ran = nebula(*arguments)
    assert (ran.status, len(platform.requests)) == (2, 0)
    assert says in ran.err and "does not understand" not in ran.err


def test_a_terminal_without_a_character_shows_its_number(
    nebula: Nebula, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nebula(*CREATE, "--description", "Gr\u00fc\u00dfe").status == 0
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    with pytest.raises(SystemExit) as ended:
        main(["vm", "show", "web-1"])
    assert ended.value.code in (0, None)
    assert b"Gr\\xfc\\xdfe" in shown.getvalue()


def test_the_token_is_given_or_found_in_the_home(nebula: Nebula, platform: Platform, tmp_path: Path) -> None:
    platform.token = "secret"
    assert nebula("vm", "list").status == 1
    assert nebula("vm", "list", "--token", "secret").status == 0
    (tmp_path / "admin.token").write_text("secret\n")
    (tmp_path / "api.url").write_text(platform.url)
    (tmp_path / "api.url").write_text(platform.url)
    assert nebula("vm", "list").status == 0


def test_options_stand_before_or_behind_the_command(nebula: Nebula, platform: Platform) -> None:
    platform.add_project("p")
    before = nebula("--output", "json", "--project", "p", "vm", "list")
    behind = nebula("vm", "list", "-o", "json", "--project", "p")
    assert before.json == behind.json
    assert [path for _, path, _, _ in platform.requests] == ["/v1/projects/p/vms"] * 2
    assert nebula("--output", "json", "vm", "list", "--output", "table").out.startswith("NAME")


def test_ctrl_c_while_waiting_names_the_operation(platform: Platform) -> None:
    platform.stuck = True
    command = [sys.executable, "-m", "cli.main", "--url", platform.url, "--token", "t", *CREATE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        while not any("wait" in query for _, _, _, query in platform.requests):
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate()
    (operation,) = platform.operations
    assert child.returncode == 130
    assert f"operation {operation} continues on the platform" in err
    assert out == ""


def test_importing_the_client_loads_no_server_and_no_settings() -> None:
    program = "import cli.main, json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    for module in ("libvirt", "faststream", "nats", "psycopg", "starlette", "pydantic", "httpx", "rich"):
        assert module not in loaded
