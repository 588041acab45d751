"""The entry point of `nebula`: all commands, and the end of each as an exit status."""

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli import catalog, events, image, log, output, replay, vm
from cli.command import root
from cli.errors import CliError, Exit

HELP = (
    "Nebula, an event-sourced private cloud.\n\n"
    "`nebula up` runs a platform on this machine; every other command speaks HTTP to one. Results go to standard "
    "output, everything else to standard error.\n\n"
    "Exit status: 0 done; 1 refused, or the operation failed; 2 wrong usage; 3 the platform cannot be reached; 4 it "
    "took longer than we waited; 130 interrupted.\n\n"
    "The options below may also stand behind the command. Without a token, admin.token in NEBULA_HOME is used."
)

app = typer.Typer(
    name="nebula",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(help=HELP)(root)

PidFile = Annotated[Path | None, typer.Option(hidden=True, help="Where to write the process number.")]

RUN = "Run"
USE = "Use"


@app.command(rich_help_panel=RUN)
def up() -> None:
    """Run the whole platform on this machine, in the foreground, until Ctrl-C; guests run on."""
    from cli.up import main

    main()


@app.command(rich_help_panel=RUN)
def demo() -> None:
    """Show it all on a real VM: create, ready, restart, stop, start, delete. Ends by itself."""
    from cli.demo import main

    main()


@app.command(rich_help_panel=RUN)
def gateway(pid_file: PidFile = None) -> None:
    """Run the HTTP API and the feeds."""
    _serve("gateway", "gateway.main", "GatewaySettings", pid_file)


@app.command(rich_help_panel=RUN)
def handlers(pid_file: PidFile = None) -> None:
    """Run what decides: commands, placement, deadlines."""
    _serve("handlers", "handlers.main", "HandlersSettings", pid_file)


@app.command(rich_help_panel=RUN)
def projections(pid_file: PidFile = None) -> None:
    """Run what makes the log readable: the read models, and the guests' cloud-init data source."""
    _serve("projections", "projections.main", "ProjectionsSettings", pid_file)


@catalog.nodes.callback(invoke_without_command=True)
def node(context: typer.Context, pid_file: PidFile = None) -> None:
    """The hosts that run VMs. Without a command: run the daemon of this host."""
    if context.invoked_subcommand is None:
        _serve("node", "node_daemon.main", "NodeSettings", pid_file)


@app.command(rich_help_panel=USE)
def version() -> None:
    """Print the version of this program."""
    try:
        output.emit(importlib.metadata.version("nebula"))
    except importlib.metadata.PackageNotFoundError:
        output.emit("unknown (run from a checkout)")


def _serve(role: str, module: str, settings_class: str, pid_file: Path | None) -> None:
    """Run one role's process until it is told to stop. Everything it needs is imported here and nowhere else."""
    import gc
    import os

    import uvloop

    from runtime import logs, settings

    own = settings.read(getattr(settings, settings_class))
    logs.configure(role, own.log_level, own.log_format)
    if pid_file is not None:
        pid_file.write_text(f"{os.getpid()}\n")
    run = importlib.import_module(module).run
    gc.freeze()  # what the imports made stays: the collector need not look at it again and again
    gc.set_threshold(5_000, 20, 20)
    uvloop.run(run(own))


for name, group in {
    "vm": vm.app,
    "project": catalog.projects,
    "tag": catalog.tags,
    "image": image.app,
    "node": catalog.nodes,
    "operation": catalog.operations,
}.items():
    app.add_typer(group, name=name, rich_help_panel=USE)
app.add_typer(replay.app, name="replay", rich_help_panel=log.LOG)
events.register(app)
log.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command (of `sys.argv` when None) and exit with its status."""
    try:
        app(args=arguments)
    except CliError as error:
        sys.stderr.write("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]) + "\n")
        raise SystemExit(error.exit) from None
    except KeyboardInterrupt:
        raise SystemExit(Exit.INTERRUPTED) from None


if __name__ == "__main__":
    main()
