"""The entry point of `nebula`: all commands, and the exit status of each."""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated

import typer

from cli.client import output
from cli.client.command import root
from cli.client.errors import CliError, Exit, Usage
from cli.commands import (
    access,
    bus,
    catalog,
    console,
    contexts,
    diff,
    enroll,
    events,
    guest,
    image,
    keys,
    log,
    parked,
    refusals,
    replay,
    simulate as simulation,
    status,
    usage,
    vault,
    views,
    vm,
    vm_verbs,
    whoami,
)
from cli.local.role import serve
from runtime.files import private
from runtime.files.unusable import sentence
from runtime.text.masking import masked
from runtime.text.plain import plain
from runtime.version import VERSION

HELP = (
    "Nebula, an event-sourced private cloud.\n\n"
    "`nebula up` runs a platform on this machine. Most other commands use its HTTP API; `verify`, `rebuild`, `export`, "
    "`import` and `vault` connect to its servers. Results go to standard output, everything else to standard error."
    "\n\n"
    "Exit status: 0 done; 1 refused, or the operation failed; 2 wrong usage; 3 the platform cannot be reached; 4 the "
    "operation took longer than the time-out; 130 interrupted.\n\n"
    "The options below may also follow the command. Without a token, the one of `nebula login` is used, or the one "
    "that `nebula up` keeps in NEBULA_HOME; each for its own platform only."
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

RUN = "Run"
USE = "Use"


@app.command(rich_help_panel=RUN)
def up(
    listen: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Serve the API and the bus on this address, with TLS, for other hosts."),
    ] = None,
) -> None:
    """Run the whole platform on this machine, in the foreground, until Ctrl-C. Guests keep running."""
    from cli.local.up import main

    main(listen)


@app.command(rich_help_panel=RUN)
def demo(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="On a cluster of three hosts on this machine, as root.")
    ] = False,
) -> None:
    """Show the whole life of a real VM: create, ready, restart, stop, start, delete. Then end."""
    from cli.demo.demo import main

    main(cluster=cluster)


@app.command(rich_help_panel=RUN)
def gateway() -> None:
    """Run the process of the HTTP API and the feeds."""
    serve("gateway")


@app.command(rich_help_panel=RUN)
def handlers() -> None:
    """Run the process that decides: commands, placement, deadlines."""
    serve("handlers")


@app.command(rich_help_panel=RUN)
def projections() -> None:
    """Run the process that updates the read models, and computes the data of each guest."""
    serve("projections")


@app.command("guest-data", rich_help_panel=RUN)
def guest_data() -> None:
    """Run the cloud-init data source of a host, which serves guests. It needs no privileges."""
    serve("guest-data")


@catalog.nodes.callback(invoke_without_command=True)
def node(
    context: typer.Context,
    simulate: simulation.Count = None,
    prefix: simulation.Prefix = None,
    region: simulation.Region = None,
    vcpus: simulation.Vcpus = None,
    memory: simulation.Memory = None,
    disk: simulation.Disk = None,
    seconds: simulation.Seconds = None,
    fault: simulation.Fault = None,
    seed: simulation.Seed = None,
    phone_home: simulation.PhoneHome = None,
) -> None:
    """The hosts that run VMs. Without a command: run the daemon of this host, or many simulated ones."""
    options = {
        "simulate_prefix": prefix,
        "region": region,
        "simulate_vcpus": vcpus,
        "simulate_memory_mib": memory,
        "simulate_disk_gib": disk,
        "simulate_seconds": simulation.numbers("seconds", seconds),
        "simulate_faults": simulation.numbers("fault", fault),
        "simulate_seed": seed,
        "simulate_phone_home": phone_home,
    }
    if context.invoked_subcommand is not None:
        return
    if simulate is not None:
        simulation.simulate({"simulate": simulate, **options})
    elif any(value is not None for value in options.values()):
        raise Usage("these options are for simulated nodes: add --simulate N")
    else:
        serve("node")


@app.command(rich_help_panel=USE)
def version() -> None:
    """Print the version of this program."""
    output.emit(VERSION)


for name, group in {
    "vm": vm.app,
    "image": image.app,
    **catalog.APPS,
    **access.APPS,
}.items():
    app.add_typer(group, name=name, rich_help_panel=USE)
app.add_typer(replay.app, name="replay", rich_help_panel=log.LOG)
access.register(catalog.projects)
whoami.register(app, USE)
console.register(vm.app)
diff.register(app)
contexts.register(app, USE)
guest.register(vm.app)
vm_verbs.register(vm.app)
enroll.register(catalog.nodes)
events.register(app)
log.register(app)
parked.register(app)
refusals.register(app)
status.register(app, USE)
usage.register(vm.app, catalog.nodes)
vault.register(app)
keys.register(app)
views.register(app)
bus.register(app, RUN)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command (of `sys.argv` when None) and exit with its status."""
    private.begin()
    if isinstance(sys.stdout, TextIOWrapper):  # characters that the terminal does not have are written as \\u…
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(args=arguments)
    except CliError as error:
        text = "\n".join([f"error: {error}", *getattr(error, "__notes__", [])])
        sys.stderr.write(plain(masked(text)) + "\n")
        raise SystemExit(error.exit) from None
    except OSError as error:
        if error.filename is None:
            raise
        sys.stderr.write(f"error: {sentence(error)}\n")
        raise SystemExit(Exit.USAGE) from None
    except KeyboardInterrupt:
        raise SystemExit(Exit.INTERRUPTED) from None


if __name__ == "__main__":
    main()
