"""The CLI, called as a shell would call it, against a platform in miniature."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench import homes
from cli.client import client
from cli.commands import events
from cli.main import main
from runtime.local.child import command_line
from runtime.tasks.backoff import Backoff
from tests.cli.fake import Platform
from tests.cli.serving import serving


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Nebula = Callable[..., Ran]


@pytest.fixture
def platform() -> Iterator[Platform]:
    with serving(Platform()) as running:
        yield running


@pytest.fixture
def nebula(
    platform: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Nebula:
    """Runs `nebula …` to its end; its status and what it printed."""
    for module in (client, events):
        monkeypatch.setattr(module, "RETRY", Backoff(first=0.0, last=0.0))
    monkeypatch.setenv("NEBULA_URL", platform.url)
    monkeypatch.setenv("NEBULA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("NEBULA_TOKEN", "NEBULA_PROJECT"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def home() -> Iterator[Path]:
    """Not in pytest's own folder: Postgres, as its own user, may not enter that."""
    with homes.home("cli") as folder:
        yield folder


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a platform on `home`, on free ports and without a hypervisor."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NEBULA_")}
    mine = {"HOME": str(home), "HTTP_PORT": "0", "SEED_PORT": "0", "METRICS_PORT": "0"}
    mine |= {"LIBVIRT_URI": "test:///default", "IMAGE_HOSTS": "127.0.0.1", **more}  # where tests serve images
    return clean | {f"NEBULA_{name}": value for name, value in mine.items()}


def is_ours(pid: int, home: Path) -> bool:
    """Whether a process works on this home."""
    return any(str(home) in argument for argument in command_line(pid))
