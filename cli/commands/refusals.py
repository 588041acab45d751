"""`nebula refusals`: calls that were refused, for auditors."""

from typing import Annotated

import typer

from cli.client import output
from cli.client.client import path
from cli.client.command import query
from cli.client.session import Session
from cli.commands.log import LOG

COLUMNS: output.Columns = {
    "TIME": "at",
    "STATUS": "status",
    "CODE": "code",
    "ADDRESS": "address",
    "CREDENTIAL": "credential",
    "ACTOR": "actor",
    "METHOD": "method",
    "PATH": "path",
    "COUNT": "count",
}


def register(app: typer.Typer) -> None:
    query(app, "refusals", panel=LOG)(refusals)


def refusals(
    session: Session,
    address: Annotated[str | None, typer.Option(help="Only of this address.")] = None,
    credential: Annotated[str | None, typer.Option(help="Only of the credential with this id.")] = None,
) -> None:
    """List what was refused with 401 or 403 in the last month, by the API and by the bus, the newest first."""
    output.listing(
        session, session.api.pages(path("refusals"), {"address": address, "credential": credential}), COLUMNS
    )
