"""`nebula keys`: the keys of the events' MACs. Runs on a host that has their file, `event.keys`.

The commands for the keys of nodes are in `node_keys.py`.

Its modules are imported when it runs.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import output
from cli.client.errors import CliError, Usage
from cli.commands import node_keys
from cli.commands.log import LOG, Format
from cli.commands.operators import local, on_bus, wants_json
from runtime.files.unusable import sentence

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.client import Client

    from eventstore.log.keyring import Keyring, Stored
    from runtime.settings import Keyed

keys = typer.Typer(help="The keys that prove who wrote an event, or a document for a node.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    node_keys.register(keys)
    app.add_typer(keys, name="keys", rich_help_panel=LOG)


@keys.command("list")
def list_(context: typer.Context, format_: Format = None) -> None:
    """The ids of the keys, and what each of them is used for. It does not show the keys."""
    from eventstore.log.keyring import read

    settings = _settings(context)
    _show(context, format_, _in(settings, lambda: read(settings.event_keys_path)))


@keys.command("rotate")
def rotate(
    context: typer.Context,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only add a key that verifies: copy the file to every host, then rotate.")
    ] = False,
    format_: Format = None,
) -> None:
    """Sign new events with a new key. The old keys still verify what they signed. Running processes notice it."""
    from eventstore.log import keyring

    settings = _settings(context)
    step = keyring.prepare if prepare else keyring.rotate
    _show(context, format_, _in(settings, lambda: step(settings.event_keys_path)))


@keys.command("retire")
def retire(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The id of a key that signs no new events.")],
    at: Annotated[
        int | None, typer.Option(min=0, help="The last position that it may sign; default: the end of the log now.")
    ] = None,
    format_: Format = None,
) -> None:
    """Accept no later event of an old key, for example of a stolen one."""
    from eventstore.log import keyring

    settings = _settings(context)

    async def end(nc: "Client") -> int:
        from eventstore.log.store import EventStore

        return await EventStore(nc, keyring.Keyring(settings.event_keys_path)).last_position()

    until = on_bus(settings, end) if at is None else at
    _show(context, format_, _in(settings, lambda: keyring.retire(settings.event_keys_path, key, until)))


@keys.command("begin")
def begin(
    context: typer.Context,
    format_: Format = None,
) -> None:
    """Make a new file after the old one was lost. All events that are in the log now are trusted: verify it first."""
    from eventstore.log import keyring

    settings = _settings(context)
    if settings.event_keys_path.exists():
        raise Usage(f"{settings.event_keys_path} exists: use it, or move it away if it is of another log")

    async def work(nc: "Client") -> "Keyring":
        from eventstore.log.store import EventStore

        # The store has no keys yet: the file is what this makes.
        return await keyring.begin(settings.event_keys_path, EventStore(nc, None), accept=True)

    on_bus(settings, work)
    _show(context, format_, _in(settings, lambda: keyring.read(settings.event_keys_path)))


def _settings(context: typer.Context) -> "Keyed":
    from runtime.settings import Keyed

    return local(context, Keyed)


def _in(settings: "Keyed", work: "Callable[[], Stored]") -> "Stored":
    """The result of work on the file. Raises CliError, Usage."""
    from eventstore.log.keyring import BadKeyring

    try:
        return work()
    except BadKeyring as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise Usage(sentence(error, settings.event_keys_path)) from error


def _show(context: typer.Context, format_: "Any", stored: "Stored") -> None:
    """Print what the file says, without the keys."""
    shown = [
        {
            "id": key.id,
            "use": "signs" if key.id == stored.signer else "verifies",
            "until": key.until,
        }
        for key in stored.keys
    ]
    if wants_json(context, format_):
        output.emit_json({"log": stored.log, "since": stored.since, "keys": shown})
        return
    for key in shown:
        output.emit(f"{key['id']} {key['use']}" + ("" if key["until"] is None else f" up to position {key['until']}"))
    output.emit(f"events up to position {stored.since} need no MAC" if stored.since else "all events need a MAC")
