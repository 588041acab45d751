"""`nebula verify views` and `nebula rebuild`: the read models, proved against the log or made anew from it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.errors import CliError, Unreachable, Usage
from cli.log import LOG, verify
from cli.operators import local, on_bus, wants_json
from cli.session import Output

if TYPE_CHECKING:
    from nats.aio.client import Client

    from projections.rebuild import Comparison
    from runtime.settings import ProjectionsSettings

Format = Annotated[Output | None, typer.Option("--output", "-o", help="For people, or for programs.")]


def register(app: typer.Typer) -> None:
    """Add these to the app."""
    app.command("rebuild", rich_help_panel=LOG)(rebuild)


@verify.command("views")
def verify_views(context: typer.Context, format_: Format = None) -> None:
    """Replay the log beside the live read models and compare both by digest. Exit status 1 when they differ."""
    from eventstore.vault import Vault
    from projections.rebuild import verify as compare

    settings = _settings(context)

    async def work(nc: "Client") -> "Comparison":
        vault = Vault.of(nc, settings.master_key_path)
        with reachable():
            return await compare(nc, settings.postgres_dsn, vault)

    found = on_bus(settings, work)
    if wants_json(context, format_):
        output.emit_json({"position": found.position, "rows": found.rows, "differing": list(found.differing)})
    else:
        output.emit(f"{found.rows} rows at position {found.position}: {'differ' if found.differing else 'as replayed'}")
    if found.differing:
        raise CliError(f"these read models differ from a replay: {', '.join(found.differing)}; run nebula rebuild")


def rebuild(context: typer.Context, format_: Format = None) -> None:
    """Replay the log into new read models and put them in the place of the live ones, without an interruption."""
    from eventstore.vault import Vault
    from projections.rebuild import rebuild as replace

    settings = _settings(context)

    async def work(nc: "Client") -> int:
        vault = Vault.of(nc, settings.master_key_path)
        with reachable():
            return await replace(nc, settings.postgres_dsn, vault)

    position = on_bus(settings, work)
    if wants_json(context, format_):
        output.emit_json({"position": position})
    else:
        output.emit(f"the read models were made anew from the log up to position {position}")


@contextmanager
def reachable() -> Iterator[None]:
    """Says in one line that Postgres is away. Raises Unreachable."""
    import psycopg

    try:
        yield
    except psycopg.OperationalError as error:
        raise Unreachable(f"Postgres cannot be reached: {str(error).strip()} (NEBULA_POSTGRES_DSN)") from error


def _settings(context: typer.Context) -> "ProjectionsSettings":
    """The settings; of a platform that `nebula up` runs on this machine, its database."""
    from runtime.servers import remembered_dsn
    from runtime.settings import ProjectionsSettings

    settings = local(context, ProjectionsSettings)
    if "postgres_dsn" not in settings.model_fields_set:
        dsn = remembered_dsn(settings.home)
        if dsn is None:
            raise Usage("no database is known here: set NEBULA_POSTGRES_DSN, or NEBULA_HOME of a `nebula up`")
        settings = settings.model_copy(update={"postgres_dsn": dsn})
    return settings
