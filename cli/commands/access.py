"""`nebula user|service-account|token …`, and the members of a project: who may use the platform."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from cli.client import output
from cli.client.client import Document, path
from cli.client.command import At, command, query
from cli.client.session import Output, Session, note
from cli.commands.catalog import Id, finish

tokens = typer.Typer(help="Tokens: credentials of users and service accounts.", no_args_is_help=True)

ACCOUNT: output.Columns = {
    "ID": "id",
    "NAME": "name",
    "ROLES": "roles",
    "DISABLED": "disabled",
    "AGE": output.age("created_at"),
}
TOKEN: output.Columns = {
    "ID": "id",
    "NAME": "name",
    "PRINCIPAL": "principal",
    "PROJECT": lambda row: row.get("project") or "all",
    "ROLE": "role",
    "READ ONLY": "read_only",
    "EXPIRES": lambda row: output.moment(row["expires_at"]),
    "LAST USED": output.age("last_used_at"),
    "AGE": output.age("created_at"),
}
MEMBER: output.Columns = {"PRINCIPAL": "principal", "ROLE": "role"}

Principal = Annotated[
    str, typer.Argument(metavar="PRINCIPAL", help="user:ID, service:ID or oidc:SUBJECT; an ID alone is a user.")
]


class CloudRole(StrEnum):
    AUDITOR = "auditor"
    OPERATOR = "operator"


class ProjectRole(StrEnum):
    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"


def principal(given: str) -> str:
    """The full name of a principal: an id alone is a user."""
    return given if ":" in given else f"user:{given}"


def accounts(plural: str, help_: str) -> typer.Typer:
    """The commands of a kind of account."""
    app = typer.Typer(help=help_, no_args_is_help=True)

    def act(session: Session, which: str, verb: str, body: Document | None = None) -> None:
        answer = session.api.send("POST", path(plural, which, verb), body or {}, key=session.key)
        finish(session, answer, ACCOUNT, path(plural, which))

    @command(app, "create")
    def create(
        session: Session,
        name: Annotated[str, typer.Argument()],
        id: Annotated[str | None, typer.Option(help="The name as a slug, unless given.")] = None,
    ) -> None:
        """Create an account."""
        answer = session.api.send("POST", path(plural), {"name": name, **({"id": id} if id else {})}, key=session.key)
        finish(session, answer, ACCOUNT, path(plural, answer["operation"]["resource"]))

    @query(app, "list")
    def list_(session: Session, at: At = None) -> None:
        """List all accounts."""
        output.listing(session, session.api.pages(path(plural), {"at": at}), ACCOUNT)

    @query(app, "show")
    def show(session: Session, which: Id, at: At = None) -> None:
        """Show an account."""
        output.one(session, session.api.get(path(plural, which), {"at": at}))

    @command(app, "rename")
    def rename(session: Session, which: Id, name: Annotated[str, typer.Argument()]) -> None:
        """Rename an account; its id does not change."""
        answer = session.api.send("PATCH", path(plural, which), {"name": name}, key=session.key)
        finish(session, answer, ACCOUNT, path(plural, which))

    @command(app, "disable")
    def disable(session: Session, which: Id) -> None:
        """Disable an account: it may do nothing until it is enabled."""
        act(session, which, "disable")

    @command(app, "enable")
    def enable(session: Session, which: Id) -> None:
        """Enable a disabled account."""
        act(session, which, "enable")

    @command(app, "bind")
    def bind(session: Session, which: Id, role: Annotated[CloudRole, typer.Argument()]) -> None:
        """Give an account a role in the whole cloud."""
        act(session, which, "bind", {"role": role})

    @command(app, "unbind")
    def unbind(session: Session, which: Id, role: Annotated[CloudRole, typer.Argument()]) -> None:
        """Take a role in the whole cloud from an account."""
        act(session, which, "unbind", {"role": role})

    @command(app, "delete")
    def delete(session: Session, which: Id) -> None:
        """Delete an account that has no role in a project."""
        finish(session, session.api.send("DELETE", path(plural, which), key=session.key), ACCOUNT, None)

    return app


#: By their names on the command line.
APPS = {
    "user": accounts("users", "Users: people who use the platform."),
    "service-account": accounts("service-accounts", "Service accounts: programs that use it."),
    "token": tokens,
}


@command(tokens, "issue")
def issue(
    session: Session,
    name: Annotated[str, typer.Argument(help="What it is for, such as laptop.")],
    of: Annotated[str | None, typer.Option("--for", metavar="PRINCIPAL", help="You, unless given.")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=366, help="How many days it lasts (90).")] = None,
    only: Annotated[bool, typer.Option("--only-project", help="Only for --project.")] = False,
    role: Annotated[str | None, typer.Option(help="No more than this role.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="For reading only.")] = False,
) -> None:
    """Issue a token. It is printed once: nobody can read it again."""
    given = {
        "name": name,
        "principal": principal(of) if of is not None else None,
        "expires_at": (datetime.now(UTC) + timedelta(days=days)).isoformat() if days is not None else None,
        "project": session.project if only else None,
        "role": role,
        "read_only": read_only or None,
    }
    body = {field: value for field, value in given.items() if value is not None}
    answer = session.api.send("POST", path("tokens"), body, key=session.key)
    secret = answer.get("secret")
    if session.output is Output.JSON or secret is None:
        finish(session, answer, TOKEN, path("tokens", answer["token"]["id"]))
    else:
        output.line(secret)
        found = answer["token"]
        note(f"token {found['id']} of {found['principal']} expires at {output.moment(found['expires_at'])}")


@query(tokens, "list")
def list_tokens(
    session: Session,
    of: Annotated[str | None, typer.Option("--for", metavar="PRINCIPAL", help="Only those of a principal.")] = None,
    at: At = None,
) -> None:
    """List the tokens that are not revoked: your own, and as an operator all."""
    wanted = {"principal": principal(of) if of is not None else None, "at": at}
    output.listing(session, session.api.pages(path("tokens"), wanted), TOKEN)


@query(tokens, "show")
def show_token(session: Session, which: Id, at: At = None) -> None:
    """Show a token, without its secret."""
    output.one(session, session.api.get(path("tokens", which), {"at": at}))


@command(tokens, "revoke")
def revoke(session: Session, which: Id) -> None:
    """Revoke a token: it is worthless for ever."""
    finish(session, session.api.send("DELETE", path("tokens", which), key=session.key), TOKEN, None)


def register(projects: typer.Typer) -> None:
    """Add the commands about the members of a project."""

    @query(projects, "members")
    def members(session: Session, which: Id, at: At = None) -> None:
        """List who has which role in a project."""
        output.listing(session, session.api.get(path("projects", which), {"at": at})["members"], MEMBER)

    @command(projects, "bind")
    def bind(session: Session, which: Id, who: Principal, role: Annotated[ProjectRole, typer.Argument()]) -> None:
        """Give a principal a role in a project; it replaces the earlier one."""
        change(session, which, "bind", {"principal": principal(who), "role": role})

    @command(projects, "unbind")
    def unbind(session: Session, which: Id, who: Principal) -> None:
        """Take the role in a project from a principal."""
        change(session, which, "unbind", {"principal": principal(who)})


def change(session: Session, which: str, verb: str, body: Document) -> None:
    """Change the members of a project, and show them."""
    answer = session.api.send("POST", path("projects", which, verb), body, key=session.key)
    if session.output is Output.JSON:
        output.emit_json(answer)
    else:
        output.emit(output.table(answer["project"]["members"], MEMBER))
