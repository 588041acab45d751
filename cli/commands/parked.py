"""`nebula parked`: messages that could not be processed; retry them or close them."""

from typing import Annotated

import typer

from cli.client import output
from cli.client.client import Document, path
from cli.client.command import query
from cli.client.session import Output, Session
from cli.commands.log import LOG

parked = typer.Typer(help="Messages that could not be processed.", no_args_is_help=True)

COLUMNS: output.Columns = {
    "SOURCE": "source",
    "KEY": "key",
    "STATUS": "status",
    "SUBJECT": "subject",
    "PARKED": "time",
    "ERROR": "error",
}

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="Its source, such as log or reports.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="Its key there; for the log, the position.")]


def register(app: typer.Typer) -> None:
    app.add_typer(parked, name="parked", rich_help_panel=LOG)


@query(parked, "list")
def list_(
    session: Session,
    status: Annotated[str | None, typer.Option(help="open (default), dropped or retried.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this source, such as log.")] = None,
) -> None:
    """List parked messages that are open, with their source and what is wrong."""
    output.listing(session, session.api.pages(path("parked"), {"status": status, "source": source}), COLUMNS)


@query(parked, "show")
def show(session: Session, source: Source, key: Key) -> None:
    """Show a parked message."""
    output.one(session, session.api.get(path("parked", source, key)))


@query(parked, "retry")
def retry(session: Session, source: Source, key: Key) -> None:
    """Put a message back on its subject, to be processed again."""
    _closed(session, session.api.send("POST", path("parked", source, key, "retry")))


@query(parked, "drop")
def drop(
    session: Session,
    source: Source,
    key: Key,
    reason: Annotated[str, typer.Option(help="Why it needs no more work; stored with the record.")],
) -> None:
    """Close the record of a message that needs no more work. A message of the log stays in the log."""
    _closed(session, session.api.send("POST", path("parked", source, key, "drop"), {"reason": reason}))


def _closed(session: Session, record: Document) -> None:
    if session.output is Output.JSON:
        output.emit_json(record)
    else:
        output.line(f"{record['source']} {record['key']}: {record['status']}")
