"""`nebula keys node|rotate-nodes`: the keys of nodes. Runs on a host that has the file `node.keys` of the handlers.

Its modules are imported when it runs.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.client import output
from cli.client.errors import CliError, Usage
from cli.client.session import note
from cli.commands.operators import local, on_bus
from runtime.files.unusable import sentence

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.client import Client

    from runtime.node_keys import NodeKeys
    from runtime.settings import HandlersSettings


def register(keys: typer.Typer) -> None:
    keys.command("node")(node)
    keys.command("rotate-nodes")(rotate_nodes)


def node(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NODE", help="The name of the node.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write its key: `node.key` for its host.")],
) -> None:
    """Write the key of one node, for a host that did not join. Copy it to that host in a way that nobody else reads."""
    from domain.patterns import SLUG
    from runtime.node_keys import give, read_root

    if re.fullmatch(SLUG, name) is None:
        raise Usage(f"{name!r} is not the name of a node")
    settings = _settings(context)
    keys = _in(settings.node_keys_path, lambda: read_root(settings.node_keys_path))
    try:
        give(keys, name, file)
    except OSError as error:
        raise Usage(sentence(error, file)) from error
    output.emit(f"{file} has the key of node {name}")


def rotate_nodes(
    context: typer.Context,
    done: Annotated[
        bool, typer.Option("--finish", help="Remove the earlier root, after all hosts have their new key.")
    ] = False,
) -> None:
    """Replace the keys of all nodes: a new root, and the one before until `--finish`. Then restart the handlers."""
    from runtime.node_keys import finish, rotate

    settings = _settings(context)
    path = settings.node_keys_path
    if not done:
        _in(path, lambda: rotate(path))
        output.emit(f"{path} has a new root; the one before still counts")
        note(
            "restart all handlers; let each host join again; then `nebula keys rotate-nodes --finish`, and restart them"
        )
        return
    unsigned = on_bus(settings, lambda nc: _not_current(nc, path))
    if unsigned:
        raise CliError(f"{unsigned} documents are not signed with the new root: restart all handlers first, and wait")
    _in(path, lambda: finish(path))
    output.emit(f"{path} has no earlier root")
    note("restart all handlers: from then on, the earlier keys of nodes count no more")


async def _not_current(nc: "Client", path: Path) -> int:
    """How many wanted documents the newest root has not signed. Raises Unavailable, CliError, Usage."""
    from dataclasses import replace

    from eventstore.documents import Documents
    from runtime import subjects
    from runtime.node_keys import WANTED, read_root

    newest = replace(_in(path, lambda: read_root(path)), earlier=None)
    stored = await Documents(nc, subjects.WANTED).all(subjects.wanted_of())
    return sum(
        not newest.valid(subjects.parse_wanted(one.subject)[0], WANTED, one.subject, one.body, one.mac)
        for one in stored
    )


def _settings(context: typer.Context) -> "HandlersSettings":
    from runtime.settings import HandlersSettings

    return local(context, HandlersSettings)


def _in(path: Path, work: "Callable[[], NodeKeys]") -> "NodeKeys":
    """The result of work on the file. Raises CliError, Usage."""
    from runtime.tasks.patience import CannotRun

    try:
        return work()
    except CannotRun as error:
        raise CliError(str(error)) from error
    except FileNotFoundError as error:
        raise Usage(f"there is no file {path}: run this on a host of the handlers") from error
    except OSError as error:
        raise Usage(sentence(error, path)) from error
