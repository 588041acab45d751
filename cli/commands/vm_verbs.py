"""`nebula vm verbs`: what can be done to a VM now."""

import typer

from cli.client import output
from cli.client.client import path
from cli.client.command import query
from cli.client.session import Output, Session
from cli.commands.vm import Name, find

COLUMNS: output.Columns = {
    "VERB": "verb",
    "ACCEPTED": "accepted",
    "BY FORCE": lambda row: row["forced"]["accepted"] if row["forced"] else None,
    "WHY NOT": "why",
}


def register(app: typer.Typer) -> None:
    query(app, "verbs")(verbs)


def verbs(session: Session, vm: Name) -> None:
    """List what you can do to a VM: what is accepted now, and why the rest is not."""
    found = session.api.get(path("projects", session.project, "vms", find(session, vm), "verbs"))
    if session.output is Output.JSON:
        output.emit_json(found)
    else:
        output.emit(output.table(found["items"], COLUMNS))
