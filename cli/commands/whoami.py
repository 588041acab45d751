"""`nebula whoami`: who the platform takes you for."""

from typing import Any

import typer

from cli.client import output
from cli.client.client import path
from cli.client.command import query
from cli.client.session import Output, Session


def register(app: typer.Typer, panel: str) -> None:
    query(app, "whoami", panel=panel)(whoami)


def roles(row: dict[str, Any]) -> str:
    """The roles of the caller, such as `auditor, member in web`."""
    said = [f"{role['role']} in {role['project']}" if role["project"] else role["role"] for role in row["roles"]]
    return ", ".join(said) or "none"


def whoami(session: Session) -> None:
    """Show who you are for the platform, your roles, and when your token expires."""
    found = session.api.get(path("me"))
    if session.output is not Output.JSON:
        found = {**found, "roles": roles(found)}
        found.pop("permissions", None)  # the roles say it in fewer words
    output.one(session, found)
