"""The process that serves guests. If root starts it, it first becomes a user without privileges."""

import asyncio
import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path

from domain.contract import RoleProcess, RoleStatus
from domain.contract.guest_data import MOST_DIGESTS
from projections.guest_data.asker import Asker, NoAnswer
from projections.guest_data.copies import Copies
from projections.guest_data.source import Source
from projections.guest_data.status import Status, kept_token
from runtime import listener, logs, subjects, unprivileged
from runtime.bus import bus, guest_credentials
from runtime.bus.refusal_records import RefusalRecords
from runtime.bus.refused_calls import RefusedGuest
from runtime.bus.status import publish_status
from runtime.files.private import passable
from runtime.process import this
from runtime.settings import GuestDataSettings
from runtime.tasks.essential import Essential, until_stopped
from runtime.tasks.stopping import on_signals
from runtime.text.masking import masked
from runtime.version import VERSION

log = logs.get(__name__)

#: On a busy host, commands get the processor before guests.
NICE = 5
#: Seconds between two questions which copies are invalid.
LOOK_SECONDS = 30.0


async def run(settings: GuestDataSettings) -> None:
    """Serve guests until SIGTERM or SIGINT. Raises errors that retries do not solve."""
    os.nice(NICE)
    settings = guest_credentials.applied(settings)
    token = kept_token(settings.home)
    folder = drop_privileges(settings.copies_dir, settings.nats_creds)
    stop = asyncio.Event()
    on_signals(stop)
    await until_stopped(stop, keep(settings, folder, token, stop))
    log.info("guest-data stopped")


def drop_privileges(folder: Path, credential: Path | None = None) -> Path | None:
    """Make the folder of the copies, and become a user without privileges, which then owns `credential` too. None if
    the folder cannot be made.

    Raises CannotRun if that user is root.
    """
    account = unprivileged.account(guest_credentials.USER)
    if account is not None:
        with contextlib.suppress(OSError):  # whoever reads it says what is wrong
            if credential is not None:
                os.chown(credential, account.uid, account.gid, follow_symlinks=False)
            guest_credentials.give(folder.parent, account)
    made: Path | None = folder
    try:
        passable(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        if account is not None:
            for path in (folder, *folder.iterdir()):  # an earlier version had another user
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
            folder.chmod(0o700)
    except OSError as error:
        log.warning("copies are kept only in memory", folder=str(folder), error=str(error))
        made = None
    if account is not None:
        unprivileged.become(account)
        log.info("running without privileges", user=account.name)
    return made


async def keep(settings: GuestDataSettings, folder: Path | None, token: str | None, stop: asyncio.Event) -> None:
    """Run all parts until cancelled or one of them fails."""
    nc = await bus.connect(settings, "guest-data")
    try:
        asker, copies = Asker(nc), Copies(folder)
        records = RefusalRecords[RefusedGuest](nc, subjects.refusal("guests"))
        source = Source(asker, copies, Status(asker, copies.__len__, token), records=records)
        process, began = RoleProcess.model_validate(this(), from_attributes=True), datetime.now(UTC)

        def status_message(ends: bool) -> bytes:
            return of_asker(asker, process, began, ends).model_dump_json().encode()

        async with Essential() as essential:
            essential.start("bus", nc.until_ended())
            essential.start(
                "status", publish_status(nc, subjects.role_status("guest-data", process.id), status_message)
            )
            essential.start("copies", remove_invalid(asker, copies))
            essential.start("refusals", records.run())
            essential.start("data source", serve_guests(settings, source, stop))
            await essential.for_ever()
    finally:
        await nc.close()


def of_asker(asker: Asker, process: RoleProcess, began: datetime, ends: bool) -> RoleStatus:
    """The status that this process publishes."""
    return RoleStatus(
        role="guest-data",
        process=process,
        began=began,
        version=VERSION,
        ends=ends,
        last_success=asker.last_success,
        last_error=masked(asker.last_error) if asker.last_error is not None else None,
        failing_since=asker.failing_since,
    )


async def remove_invalid(asker: Asker, copies: Copies) -> None:
    """Remove the copies whose secrets are no longer valid, and old copies, for ever."""
    while True:
        await remove_invalid_once(asker, copies)
        await asyncio.sleep(LOOK_SECONDS)


async def remove_invalid_once(asker: Asker, copies: Copies) -> None:
    """The same, once. While the projections do not answer, copies are kept until they are too old."""
    copies.remove_old()
    names = copies.names
    for begin in range(0, max(len(names), 1), MOST_DIGESTS):  # at least once, to learn whether the projections answer
        try:
            invalid = await asker.invalid(tuple(names[begin : begin + MOST_DIGESTS]))
        except NoAnswer:
            return
        copies.remove(invalid)


async def serve_guests(settings: GuestDataSettings, source: Source, stop: asyncio.Event) -> None:
    """Serve the data source as soon as its address can be bound."""
    sock = await listener.bound("data source", settings.seed_host, settings.seed_port)
    host, port = sock.getsockname()[:2]
    log.info("data source listens", host=host, port=port)
    await listener.serve(source, sock, stop, settings.http_limits)
