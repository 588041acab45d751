"""`nebula vault`: the keys that keep secrets out of the log. Needs the master key, so it runs on a host that has it.

It uses NATS, not HTTP (NEBULA_NATS_URL; for a platform on this machine, the address that `nebula up` has stored). Its
modules are imported when it runs.
"""

import base64
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import output
from cli.client.errors import CliError, Usage
from cli.commands.log import LOG, Format
from cli.commands.operators import local, on_bus, wants_json

if TYPE_CHECKING:
    from nats.aio.client import Client

    from domain.base import Sealed
    from eventstore.vault.vault import Erasure

#: How many names of keys that no master key opens are listed.
MOST_NAMED = 10

vault = typer.Typer(help="The keys that keep secrets out of the log.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(vault, name="vault", rich_help_panel=LOG)


@vault.command("reveal")
def reveal(
    context: typer.Context,
    vm: Annotated[str, typer.Argument(metavar="VM", help="Its id; it may be deleted.")],
    at: Annotated[
        str | None, typer.Option(help="As it was at a position of the log, or at a time.", metavar="POSITION|TIME")
    ] = None,
    format_: Format = None,
) -> None:
    """Print the user-data of a VM. If the VM is deleted, nobody can read its user-data any more."""
    from runtime.settings import ProjectionsSettings

    settings = local(context, ProjectionsSettings)
    if not settings.master_key_path.exists():
        raise Usage(f"there is no master key at {settings.master_key_path}: run this on a host that has it")
    moment = _moment(at)

    async def work(nc: "Client") -> "tuple[Sealed | None, bytes | Erasure]":
        from domain.vm import evolve
        from eventstore.log.keyring import Keyring
        from eventstore.log.store import EventStore
        from eventstore.vault.vault import Vault
        from runtime import subjects

        store = EventStore(nc, Keyring(settings.event_keys_path))
        try:
            found = await store.read(0, subjects.events(kind="vm", id_=vm), 1)
        except ValueError as error:
            raise Usage(str(error)) from error
        state = (await store.load(found[0].ref, evolve, at=moment)).state if found else None
        if state is None:
            when = f" at {at}" if at and found else ""
            raise CliError(f"there is no VM with the id {vm} in the log{when}: give the id, not the name")
        sealed = state.user_data
        keys = Vault.of(nc, settings.master_key_path)
        return sealed, await keys.reveal(sealed) if sealed else b""

    sealed, found = on_bus(settings, work)
    if wants_json(context, format_):
        erased = {"erased": True, "size": sealed.size} if sealed else None
        shown = {"erased": False, **_shown(found)} if isinstance(found, bytes) else erased
        output.emit_json({"vm": vm, "user_data": shown if sealed else None})
    elif sealed is None:
        raise CliError(f"VM {vm} has no user-data")
    elif isinstance(found, bytes):
        output.emit_exactly(found)
    else:
        raise CliError(f"erased: {found}")


def _shown(secret: bytes) -> dict[str, str]:
    """A value for JSON: text, or base64 if it is not text."""
    try:
        return {"text": secret.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(secret).decode()}


def _moment(text: str | None) -> "Any":
    """A position, a time, or None."""
    from datetime import UTC, datetime

    if text is None or text.isdigit():
        return None if text is None else int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Usage(f"neither a position of the log nor a time: {text!r}") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@vault.command("rotate")
def rotate(
    context: typer.Context,
    finish: Annotated[
        bool, typer.Option("--finish", help="Drop the old master key, when every host has the new one.")
    ] = False,
    format_: Format = None,
) -> None:
    """Exchange the master key: add a new one at the top of the file, and wrap all keys with it. Safe to repeat."""
    from runtime.settings import Vaulted

    settings = local(context, Vaulted)

    async def work(nc: "Client") -> dict[str, Any]:
        from eventstore.vault import masterkey
        from eventstore.vault.keystore import KeyStore

        store = KeyStore(nc)
        path = settings.master_key_path
        keys = masterkey.master_keys(path) if finish else masterkey.begin(path)
        done = await masterkey.rewrap(store, keys[1:], keys[0])
        while finish and done.changed:
            done = await masterkey.rewrap(store, keys[1:], keys[0])
        if finish:
            masterkey.finish(path)
        return {
            "file": str(path),
            "rewrapped": done.changed,
            "already": done.already,
            "not_opened": done.not_opened,
            "finished": finish,
        }

    done = on_bus(settings, work)
    if wants_json(context, format_):
        output.emit_json(done)
        return
    output.emit(f"{done['rewrapped']} keys wrapped with the new master key; {done['already']} already were")
    if done["not_opened"]:
        named = ", ".join(done["not_opened"][:MOST_NAMED])
        output.emit(f"{len(done['not_opened'])} names skipped, because no master key opens their content: {named}")
    if finish:
        output.emit(f"{done['file']} holds the new master key only")
    else:
        output.emit(f"copy {done['file']} to every host that has one, then: nebula vault rotate --finish")
