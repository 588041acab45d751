"""`nebula verify views` and `nebula rebuild`: compare the read models with the log, or build them again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import output
from cli.client.errors import CliError, Unreachable, Usage
from cli.client.session import Output
from cli.commands.log import LOG, verify
from cli.commands.operators import local, on_bus, wants_json

if TYPE_CHECKING:
    from nats.aio.client import Client

    from projections.rebuild import Comparison
    from runtime.settings import ProjectionsSettings

Format = Annotated[Output | None, typer.Option("--output", "-o", help="For people, or for programs.")]


#: The description of a row that differs.
DESCRIPTIONS = {"missing": "is missing", "extra": "is not in the log", "differs": "differs in "}


def register(app: typer.Typer) -> None:
    """Add these to the app."""
    app.command("rebuild", rich_help_panel=LOG)(rebuild)


@verify.command("views")
def verify_views(context: typer.Context, format_: Format = None) -> None:
    """Replay the log into a copy of the read models and compare every column. Exit status 1 if they differ."""
    from eventstore.log.keyring import Keyring
    from eventstore.vault.vault import Vault
    from projections import rebuild
    from projections.past.models import PAST
    from projections.shelf import NOW

    settings = _settings(context)

    async def work(nc: "Client") -> "list[Comparison]":
        vault, keys = Vault.of(nc, settings.master_key_path, creates=False), Keyring(settings.event_keys_path)
        dsn = settings.postgres_dsn
        with reachable(dsn):
            shelves = [NOW, PAST] if await rebuild.is_made(dsn, PAST) else [NOW]
            return [await rebuild.verify(nc, dsn, vault, keys, shelf=shelf) for shelf in shelves]

    now, *past = on_bus(settings, work)
    differing = [name for each in (now, *past) for name in each.differing]
    if wants_json(context, format_):
        output.emit_json(document(now, *past))
    else:
        for what, found in zip(("", " of the past"), (now, *past), strict=False):
            result = "differ" if found.differing else "as replayed"
            output.line(f"{found.rows} rows{what} at position {found.position}: {result}")
            for line in lines(found):
                output.line(line)
        if not past:
            output.line("there are no rows of the past yet")
    if differing:
        raise CliError(f"these read models differ from a replay: {', '.join(differing)}; run nebula rebuild")


def document(found: "Comparison", past: "Comparison | None" = None) -> dict[str, Any]:
    """A comparison for programs. Tables of the past have names of their own."""
    tables = [
        {
            "table": each.table,
            "differing": each.count,
            "columns": list(each.columns),
            "rows": [{"key": dict(row.key), "what": row.what, "columns": list(row.columns)} for row in each.rows],
        }
        for each in (*found.tables, *(past.tables if past is not None else ()))
    ]
    differing = [table["table"] for table in tables]
    made = {"position": past.position, "rows": past.rows} if past is not None else None
    return {"position": found.position, "rows": found.rows, "differing": differing, "tables": tables, "past": made}


def lines(found: "Comparison") -> Iterator[str]:
    """The differences, for people: one line for each table and for each row that is named."""
    for each in found.tables:
        shape = f"; columns of one side only, or of another type: {', '.join(each.columns)}" if each.columns else ""
        yield f"{each.table}: {each.count} row{' differs' if each.count == 1 else 's differ'}{shape}"
        for row in each.rows:
            key = " ".join(f"{name}={json.dumps(value)}" for name, value in row.key.items())
            yield f"  {key}: {DESCRIPTIONS[row.what]}{', '.join(row.columns)}"
        if each.count > len(each.rows):
            yield f"  and {each.count - len(each.rows)} more"


def rebuild(context: typer.Context, format_: Format = None) -> None:
    """Replay the log into new read models and replace the live ones by them, without an interruption."""
    from eventstore.log.keyring import Keyring
    from eventstore.vault.vault import Vault
    from projections.past.models import PAST
    from projections.rebuild import rebuild as replace
    from projections.shelf import NOW

    settings = _settings(context)

    async def work(nc: "Client") -> list[int]:
        vault, keys = Vault.of(nc, settings.master_key_path, creates=False), Keyring(settings.event_keys_path)
        dsn = settings.postgres_dsn
        with reachable(dsn):
            return [await replace(nc, dsn, vault, keys, shelf=shelf) for shelf in (NOW, PAST)]

    position, past = on_bus(settings, work)
    if wants_json(context, format_):
        output.emit_json({"position": position, "past": past})
    else:
        output.line(f"the read models were built again from the log up to position {position}")
        output.line(f"the rows of the past were built again up to position {past}")


@contextmanager
def reachable(dsn: str) -> Iterator[None]:
    """Reports in one line that Postgres is down, or that the work has to be repeated. Raises Unreachable, CliError."""
    import psycopg

    from projections import database
    from projections.rebuild import Busy, Replaced
    from projections.runner import OtherLog
    from runtime.tasks.patience import one_line

    try:
        yield
    except (Busy, Replaced, OtherLog) as error:
        raise CliError(str(error)) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise CliError(str(database.refused(dsn, error))) from error
    except psycopg.OperationalError as error:
        raise Unreachable(
            f"{database.place(dsn)} cannot be reached: {one_line(error)} (NEBULA_POSTGRES_DSN)"
        ) from error


def _settings(context: typer.Context) -> "ProjectionsSettings":
    """The settings, with the database of a platform that `nebula up` runs on this machine."""
    from runtime.local.servers import remembered_dsn
    from runtime.settings import ProjectionsSettings

    settings = local(context, ProjectionsSettings)
    if "postgres_dsn" not in settings.model_fields_set:
        dsn = remembered_dsn(settings.home)
        if dsn is None:
            raise Usage("no database is known: set NEBULA_POSTGRES_DSN, or NEBULA_HOME to the home of a `nebula up`")
        settings = settings.model_copy(update={"postgres_dsn": dsn})
    return settings
