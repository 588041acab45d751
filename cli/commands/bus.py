"""`nebula bus`: the keys and credentials of a bus whose server and roles are started one by one.

`nebula up` does the same for its own bus. The modules are imported when a command runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from cli.client import output
from cli.client.errors import CliError

bus = typer.Typer(help="The keys and credentials of a bus that `nebula up` does not start.", no_args_is_help=True)


def register(app: typer.Typer, panel: str) -> None:
    app.add_typer(bus, name="bus", rich_help_panel=panel)


@bus.command("init")
def init() -> None:
    """Make the keys of the bus, and the files of the server and of each role (NEBULA_BUS_FILES). Repeatable.

    Run it before the NATS server, which reads `server/nats.conf`.
    """
    from cli.local.bus_authority import of
    from runtime.settings import AuthoritySettings, read

    settings = read(AuthoritySettings)
    of(settings).renew()
    output.emit(str(settings.bus_files))


@bus.command("serve")
def serve() -> None:
    """Run the process that renews credentials of roles, revokes those of nodes, and records what the bus refuses."""
    from cli.local.role import serve

    serve("authority")


@bus.command("adopt")
def adopt(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder of its streams (NEBULA_NATS_STORE).")],
) -> None:
    """Give the streams of a stopped server that had no accounts to the account of the log."""
    from cli.local.bus_authority import of
    from runtime.bus.accounts.table import Account
    from runtime.local import adopt
    from runtime.local.child import ServerError
    from runtime.settings import AuthoritySettings, read

    account = of(read(AuthoritySettings)).authority.public[Account.CONTROL]
    try:
        done = adopt.adopt(store, account)
    except ServerError as error:
        raise CliError(str(error)) from error
    output.emit("adopted" if done else "nothing to adopt")


@bus.command("check")
def check(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder of its streams (NEBULA_NATS_STORE).")],
) -> None:
    """Check that a stopped server of a cluster has its whole copy of the log. Run it before each start."""
    from runtime.local import copies

    found = copies.faults(store)
    if found:
        raise CliError("; ".join([*found, "remove this folder, so that the server copies all streams from the others"]))


@bus.command("run", context_settings={"ignore_unknown_options": True})
def run(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder of its streams (NEBULA_NATS_STORE).")],
    program: Annotated[list[str], typer.Argument(metavar="PROGRAM…", help="nats-server and its options.")],
) -> None:
    """Run a server of a cluster. It ends when its disk was full and has room again, so that it can be started again.

    It does not start on a disk without room, nor without its whole copy of the log (`nebula bus check`).
    """
    import asyncio

    from runtime.local import member
    from runtime.local.child import ServerError

    try:
        status = asyncio.run(member.run(store, program))
    except (ServerError, OSError) as error:
        raise CliError(str(error)) from error
    raise typer.Exit(status)
