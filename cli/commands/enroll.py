"""`nebula node token|revoke|enrollments`: who may run a node."""

import hashlib
import secrets
from typing import Annotated

import typer

from cli.client import output
from cli.client.client import path
from cli.client.command import At, command, query
from cli.client.errors import Refused
from cli.client.session import Output, Session, note
from cli.commands.catalog import Id, finish

ENROLLMENT: output.Columns = {
    "NODE": "id",
    "STATUS": "status",
    "KEY": lambda row: (row.get("fingerprint") or "")[:23],
    "JOINED": output.age("joined_at"),
    "TOKEN UNTIL": "token_expires_at",
}


def token(
    session: Session,
    node: Id,
    minutes: Annotated[int, typer.Option(min=1, max=60, help="For how long the token is valid.")] = 60,
    at: Annotated[str | None, typer.Option("--at", metavar="URL", help="The platform, as the host reaches it.")] = None,
) -> None:
    """Allow one host to run the node of this name. Prints the command to run on that host, which is valid once.

    A host that runs the node now continues until the other one has joined; then its key is revoked.
    """
    made = f"nbj_{node}_{secrets.token_urlsafe(32)}"
    body = {"digest": hashlib.sha256(made.encode()).hexdigest(), "minutes": minutes}
    answer = session.api.send("POST", path("enrollments", node, "issue"), body, key=session.key)
    found = authority(session)
    url = at or session.api.url
    words = ["nebula", "node", "join", url, made, *(["--ca-fingerprint", found] if found else [])]
    if session.output is Output.JSON:
        expires = answer["enrollment"]["token_expires_at"]
        whole = {"node": node, "token": made, "url": url, "ca_fingerprint": found, "expires_at": expires}
        output.emit_json({**whole, "command": " ".join(words)})
        return
    note(f"run this on the host of node {node}, as the user that runs the node, within {minutes} minutes:")
    output.line(" ".join(words))


def authority(session: Session) -> str | None:
    """The fingerprint of the platform's authority; None if it has none of its own."""
    try:
        found, _ = session.api.raw(path("ca"))
    except Refused as refusal:
        if refusal.code == "no_authority":
            return None
        raise
    from runtime.tls.authority import fingerprint

    return fingerprint(found)


def revoke(session: Session, node: Id) -> None:
    """End the credential of a node, and its join token. Its daemon is cut off within seconds; its VMs go on running."""
    answer = session.api.send("POST", path("enrollments", node, "revoke"), {}, key=session.key)
    finish(session, answer, ENROLLMENT, path("enrollments", node))


def enrollments(session: Session, at: At = None) -> None:
    """List which nodes have a key or a join token."""
    output.listing(session, session.api.pages(path("enrollments"), {"at": at}), ENROLLMENT)


def join(
    url: Annotated[str, typer.Argument(metavar="URL", help="The platform.")],
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The join token; - reads it from standard input.")],
    ca_fingerprint: Annotated[
        str | None,
        typer.Option(metavar="sha256:…", help="Of the platform's authority, checked before all else."),
    ] = None,
) -> None:
    """Make this host a node: run the command that `nebula node token` has printed."""
    import sys

    from cli.client import joining
    from runtime.settings import NodeSettings, read

    given = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105  (no secret)
    settings = read(NodeSettings)
    held = joining.join(settings.home, url, given, ca_fingerprint)
    output.line(f"this host is node {held.node}; start its daemon with: nebula node")


def register(app: typer.Typer) -> None:
    """Add the commands to the group of nodes."""
    command(app, "token")(token)
    app.command("join")(join)
    command(app, "revoke")(revoke)
    query(app, "enrollments")(enrollments)
