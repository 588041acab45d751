"""`nebula`, as a shell would call it, with some of its commands."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import typer

from cli.client.command import root
from cli.client.errors import CliError


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def nebula(*registered: Callable[[typer.Typer], None]) -> typer.Typer:
    """The app with these commands."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(root)
    for register in registered:
        register(app)
    return app


async def ran(app: typer.Typer, capsys: pytest.CaptureFixture[str], *arguments: object) -> Ran:
    """Run a command to its end."""
    status, error = await asyncio.to_thread(_call, app, [str(argument) for argument in arguments])
    return Ran(status, capsys.readouterr().out, error)


def _call(app: typer.Typer, arguments: list[str]) -> tuple[int, str]:
    try:
        app(args=arguments)
    except CliError as error:
        return int(error.exit), str(error)
    except SystemExit as ended:
        return int(ended.code or 0), ""
    raise AssertionError("a command ends")
