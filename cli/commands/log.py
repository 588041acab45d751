"""`nebula verify`, `export`, `import` and `schemas`: for operators, directly on the log.

They use NATS, not HTTP (NEBULA_NATS_URL; for a platform on this machine, the address that `nebula up` has stored).
`verify file` needs no connection. Their modules are imported when they run.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.client import output
from cli.client.errors import CliError, Usage
from cli.client.files import readable, writable
from cli.client.session import Output, note
from cli.commands.operators import local, on_bus, wants_json
from runtime.files.files import put_in_place
from runtime.files.unusable import sentence

if TYPE_CHECKING:
    from nats.aio.client import Client

    from eventstore.integrity.checkpoints import Keys
    from eventstore.integrity.report import Report
    from eventstore.log.keyring import Keyring
    from runtime.settings import Common, Keyed

T = TypeVar("T")
S = TypeVar("S", bound="Common")

LOG = "The log"

Format = Annotated[Output | None, typer.Option("--output", "-o", help="For people, or for programs.")]
Key = Annotated[
    Path | None, typer.Option("--key", help="The public keys to trust (checkpoint.pub in NEBULA_HOME).", metavar="FILE")
]
EventKeysFile = Annotated[
    Path | None,
    typer.Option(
        help="The keys of the events' MACs (event.keys in NEBULA_HOME). Without the file, no MAC is checked.",
        metavar="FILE",
    ),
]
NoKey = Annotated[bool, typer.Option("--no-key", help="Do not check signatures.")]
Foreign = Annotated[
    list[str] | None,
    typer.Option(help="A pattern of types that others may write, such as 'acme.*'. Repeatable.", metavar="PATTERN"),
]

verify = typer.Typer(help="Check that the log is complete, and is the one that was signed.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add all of these to the app."""
    app.add_typer(verify, name="verify", rich_help_panel=LOG)
    app.command("export", rich_help_panel=LOG)(export)
    app.command("import", rich_help_panel=LOG)(import_)
    app.command("schemas", rich_help_panel=LOG)(schemas)


@verify.command("log")
def verify_log(
    context: typer.Context,
    key: Key = None,
    no_key: NoKey = False,
    foreign: Foreign = None,
    against: Annotated[
        Path | None, typer.Option(help="An earlier export, to find where the log differs from it.", metavar="FILE")
    ] = None,
    event_keys: EventKeysFile = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Read the whole log, also what an earlier verification has read.")
    ] = False,
    format_: Format = None,
) -> None:
    """Check the log: chains, versions, positions, types, MACs, checkpoints. Exit status 1 if one is wrong.

    What came before the last checkpoint of the verification before is not read again without --all.
    """
    from eventstore.integrity import audit
    from eventstore.integrity.verified import Kept

    settings = local(context, _keyed())
    ring = _event_keys(settings, event_keys)
    keys = _keys(settings, key, no_key)
    if against is not None:
        readable(against)
    kept = None
    if keys is not None and ring is not None:
        kept = Kept(settings.home / "verified.state", ring, keys, foreign or ())

    async def work(nc: "Client") -> "Report":
        return await audit.verify_log(
            nc,
            keys=keys,
            foreign=foreign or (),
            against=against,
            progress=_Progress("verified"),
            event_keys=ring,
            kept=kept,
            everything=all_,
        )

    _print(on_bus(settings, work), wants_json(context, format_), signatures=keys is not None, against=against)


@verify.command("file")
def verify_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `nebula export` wrote.")],
    key: Key = None,
    no_key: NoKey = False,
    foreign: Foreign = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Accept events after the last checkpoint.")
    ] = False,
    event_keys: EventKeysFile = None,
    format_: Format = None,
) -> None:
    """Check an exported file. It needs only the file and the public key, no server."""
    from eventstore.integrity.archive import verify_file

    settings = local(context, _keyed())
    keys, ring = _keys(settings, key, no_key), _event_keys(settings, event_keys)
    try:
        report = verify_file(
            readable(file), keys=keys, foreign=foreign or (), signed=not allow_unsigned, event_keys=ring
        )
    except OSError as error:
        raise Usage(sentence(error, file)) from error
    _print(report, wants_json(context, format_), signatures=keys is not None)


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; it must not exist.")],
    after: Annotated[int, typer.Option(min=0, help="After this position.")] = 0,
    to: Annotated[int | None, typer.Option(min=1, help="Up to this position, or the next signed one.")] = None,
    format_: Format = None,
) -> None:
    """Write the log, or a range of it, to a file that can be verified by itself."""
    from dataclasses import asdict

    from eventstore.integrity import transfer
    from eventstore.integrity.checkpoints import signing_key
    from eventstore.integrity.notary import Disagrees, Notary

    settings = local(context, _keyed())
    key_file, ring = settings.home / "checkpoint.key", _event_keys(settings, None)
    part = writable(file).with_name(f"{file.name}.part")

    async def work(nc: "Client") -> transfer.Exported:
        if to is None and key_file.exists():
            try:
                await Notary(nc, signing_key(key_file), event_keys=ring).step()
            except Disagrees as error:
                note(f"warning: not signed: {error}")
        with part.open("wb") as target:
            return await transfer.export(
                nc, target, after=after, to=to, progress=_Progress("exported"), event_keys=ring
            )

    try:
        done = on_bus(settings, work)
        put_in_place(part, file, 0o600)
    except transfer.Refused as error:
        raise CliError(str(error)) from error
    finally:
        part.unlink(missing_ok=True)
    if wants_json(context, format_):
        output.emit_json({"file": str(file), **asdict(done)})
    else:
        output.line(f"{file}: positions {done.first} to {done.last}, {done.events} events")
        output.line(f"signed up to {done.signed} ({done.checkpoints} checkpoints)")
    if done.signed < done.last:
        note(f"no checkpoint covers positions {max(done.signed, done.first - 1) + 1} to {done.last} yet")


def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An export of a whole log.")],
    key: Key = None,
    no_key: NoKey = False,
    event_keys: EventKeysFile = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a restore that was interrupted.")] = False,
    format_: Format = None,
) -> None:
    """Restore a log into an empty server, every event at its position. Stop all roles first."""
    from eventstore.integrity import transfer

    settings = local(context, _keyed())
    keys, ring = _keys(settings, key, no_key), _event_keys(settings, event_keys)
    readable(file)

    async def work(nc: "Client") -> "Report":
        return await transfer.restore(
            nc,
            file,
            keys=keys,
            replicas=settings.nats_replicas,
            resume=resume,
            progress=_Progress("restored"),
            event_keys=ring,
        )

    try:
        report = on_bus(settings, work)
    except transfer.Unsound as error:
        _print(error.report, wants_json(context, format_), signatures=keys is not None)
        return
    except transfer.Refused as error:
        raise CliError(str(error)) from error
    _print(report, wants_json(context, format_), signatures=keys is not None, failing=False)
    if not report.ok:
        note(f"{len(report.findings)} malformed messages are in the log, as in the exported log")


def schemas(
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Folder for the files, one for each.")] = None,
) -> None:
    """JSON Schema of every event, and the AsyncAPI document of the bus: printed as one, or written as files."""
    from cli.asyncapi import documents
    from eventstore.integrity.schemas import write

    if folder is None:
        output.emit_json(documents())
        return
    for name in write(folder, documents()):
        output.emit(str(folder / name))


# ── shared ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Progress:
    """Shows the progress at a terminal, every two seconds."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._next = time.monotonic() + 2.0

    def __call__(self, done: int, of: int) -> None:
        if sys.stderr.isatty() and time.monotonic() > self._next:
            self._next = time.monotonic() + 2.0
            note(f"{self._word} {done} of {of}")


def _print(
    report: "Report", json_: bool, *, signatures: bool, against: Path | None = None, failing: bool = True
) -> None:
    """Print a report; CliError when it has findings (`failing`)."""
    if json_:
        output.emit_json(report.document())
    else:
        if report.doubt is not None:
            output.line(f"the whole log was read: {report.doubt}")
        if report.before:
            output.line(f"positions 1 to {report.before} were verified at {report.verified_at}, and not read again:")
            output.line("  a later change of them is found with --all only")
        new = f"positions {report.first} to {report.last}" if report.last >= report.first else "no new positions"
        output.line(f"{report.what}: {new}")
        output.line(f"{report.events} events of {report.aggregates} aggregates, {report.checkpoints} checkpoints")
        output.line(f"signed up to position {report.proven}" if signatures else "signatures were not checked")
        output.line("MACs of the events were checked" if report.macs_checked else "MACs of the events were not checked")
        output.line(f"digest {report.digest}")
        if against is not None:
            output.line(f"compared with {against}, event by event")
        for finding in report.findings:
            output.line(f"  {finding}")
    if failing and not report.ok:
        count = len(report.findings) + report.more_findings
        raise CliError(f"{count} finding{'s' if count > 1 else ''}: see the findings above and docs/integrity.md")


def _keyed() -> "type[Keyed]":
    from runtime.settings import Keyed

    return Keyed


def _event_keys(settings: "Keyed", file: Path | None) -> "Keyring | None":
    """The keys of the events' MACs; None if the file was not named and does not exist. Raises Usage."""
    from eventstore.log.keyring import BadKeyring, Keyring, NoKeyring

    path = file or settings.event_keys_path
    if file is None and not path.exists():
        return None
    ring = Keyring(path)
    try:
        ring.ready()
    except (BadKeyring, NoKeyring, OSError) as error:
        raise Usage(str(error)) from error
    return ring


def _keys(settings: "Common", file: Path | None, no_key: bool) -> "Keys | None":
    from eventstore.integrity.checkpoints import BadKey, public_keys

    if no_key:
        return None
    try:
        return public_keys(file or settings.home / "checkpoint.pub")
    except BadKey as error:
        raise Usage(f"{error}\n  give the public key with --key, or use --no-key to check no signatures") from error
