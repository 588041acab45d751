"""Settings that hold secrets are refused without a word of them, and no process leaves its memory in a file."""

import subprocess
import sys

import pytest

from cli import main
from cli.client.errors import CliError
from cli.client.session import note
from runtime.settings import Common, GatewaySettings, GuestDataSettings, NodeSettings, read

SECRET = "hunter2"


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql:/u:{SECRET}@h/db",
        f"postgres//u:{SECRET}@h/db",
        f"postgresql://u:{SECRET} x@h/db",
        f"postgresql://u:{SECRET}%zz@h/db",
        f"postgresql://u:{SECRET}@[h/db",
        f"host=h password='{SECRET}",
        f"host=h {SECRET}=x",
    ],
)
def test_a_dsn_that_is_none(dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("NEBULA_POSTGRES_DSN", dsn)
    with pytest.raises(SystemExit):
        read(GatewaySettings)
    said = capsys.readouterr().err
    assert "NEBULA_POSTGRES_DSN" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    "url",
    [
        f"nats://u:{SECRET}/x@h:4222",
        f"nats://u:{SECRET},x@h:4222",
        f"nats://h:4222,nats://u:x#{SECRET}@h",
        f"nats://h:4222?{SECRET}",
        f"nats://u:{SECRET}@",
        "nats://h:0",
        "",
    ],
)
def test_a_url_of_nats_that_is_none(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEBULA_NATS_URL", url)
    with pytest.raises(SystemExit):
        read(NodeSettings)
    said = capsys.readouterr().err
    assert "NEBULA_NATS_URL" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("kind", "name"), [(GatewaySettings, "NEBULA_HTTP_HOST"), (GuestDataSettings, "NEBULA_SEED_HOST")]
)
@pytest.mark.parametrize("host", ["a" * 70, "a..b", "x" * 64 + ".example"])
def test_a_host_that_is_none(
    kind: type[Common], name: str, host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, host)
    with pytest.raises(SystemExit) as ended:
        read(kind)
    assert ended.value.code == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("url", ["127.0.0.1:4222", "nats://u:p%2Fx@h:4222,tls://[::1]:1/", "nats://a:1, nats://b:2"])
def test_urls_of_nats(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEBULA_NATS_URL", url)
    assert read(NodeSettings).nats_url == url


def test_what_the_command_line_says_is_masked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> None:
        error = CliError(f"the log at nats://u:{SECRET}@h:1 does not answer")
        error.add_note(f"password={SECRET}")
        raise error

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit):
        main.main([])
    note(f"https://u:{SECRET}@h/ does not answer")
    said = capsys.readouterr().err
    assert SECRET not in said
    assert said.count("***") == 3


def test_no_process_leaves_a_core_file() -> None:
    program = (
        "import resource, subprocess; from runtime.files import private\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)\n"
        "private.begin(); print(subprocess.run(['sh', '-c', 'ulimit -Hc'], capture_output=True, text=True).stdout)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "0"
