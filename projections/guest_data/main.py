"""The process that serves guests. As root it becomes a user without rights before it does anything else."""

import asyncio
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

from domain.contract import RoleProcess, RoleStatus
from domain.contract.guest_data import MOST_DIGESTS
from projections.guest_data.asker import Asker, NoAnswer
from projections.guest_data.copies import Copies
from projections.guest_data.source import Source
from projections.guest_data.status import Status
from runtime import listener, logs, subjects, unprivileged
from runtime.bus import bus
from runtime.bus.status import tell
from runtime.files.private import passable
from runtime.process import this
from runtime.settings import GuestDataSettings
from runtime.tasks.essential import Essential, until_stopped
from runtime.text.masking import masked

log = logs.get(__name__)

#: Who it runs as where it was started by root: the first of these users that there is.
USERS = ("nebula-guest-data", "nobody")
#: On a busy host commands get the processor before guests do.
NICE = 5
#: Seconds between two questions which copies count no more.
LOOK_SECONDS = 30.0


async def run(settings: GuestDataSettings) -> None:
    """Serve guests until SIGTERM or SIGINT. What fails for good is raised."""
    os.nice(NICE)
    folder = give_up_rights(settings.copies_dir)
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stop.set)
    await until_stopped(stop, keep(settings, folder, stop))
    log.info("guest-data stopped")


def give_up_rights(folder: Path) -> Path | None:
    """Make the folder of the copies, and be a user without rights. None where there can be no folder.

    Raises CannotRun where there is no such user.
    """
    account = unprivileged.user(USERS)
    made: Path | None = folder
    try:
        passable(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid, follow_symlinks=False)
            folder.chmod(0o700)
    except OSError as error:
        log.warning("copies are kept in memory alone", folder=str(folder), error=str(error))
        made = None
    if account is not None:
        unprivileged.become(account)
        log.info("runs without rights", user=account.pw_name)
    return made


async def keep(settings: GuestDataSettings, folder: Path | None, stop: asyncio.Event) -> None:
    """All of it, until cancelled or a part of it fails."""
    nc = await bus.connect(settings, "guest-data")
    try:
        asker, copies = Asker(nc), Copies(folder)
        source = Source(asker, copies, Status(asker, copies.__len__))
        process, began = RoleProcess.model_validate(this(), from_attributes=True), datetime.now(UTC)

        def word(ends: bool) -> bytes:
            return of_asker(asker, process, began, ends).model_dump_json().encode()

        async with Essential() as essential:
            essential.start("bus", nc.until_ended())
            essential.start("status", tell(nc, subjects.role_status("guest-data", process.id), word))
            essential.start("copies", forget(asker, copies))
            essential.start("data source", serve_guests(settings, source, stop))
            await essential.for_ever()
    finally:
        await nc.close()


def of_asker(asker: Asker, process: RoleProcess, began: datetime, ends: bool) -> RoleStatus:
    """What this process says of itself."""
    return RoleStatus(
        role="guest-data",
        process=process,
        began=began,
        ends=ends,
        last_success=asker.last_success,
        last_error=masked(asker.last_error) if asker.last_error is not None else None,
        failing_since=asker.failing_since,
    )


async def forget(asker: Asker, copies: Copies) -> None:
    """Remove the copies whose secrets open nothing any more, and old ones, for ever."""
    while True:
        await look(asker, copies)
        await asyncio.sleep(LOOK_SECONDS)


async def look(asker: Asker, copies: Copies) -> None:
    """The same, once. While nobody can say, what is there is kept until it is old."""
    copies.remove_old()
    names = copies.names
    for begin in range(0, max(len(names), 1), MOST_DIGESTS):  # once at least: so it is known whether they answer
        try:
            unknown = await asker.unknown(tuple(names[begin : begin + MOST_DIGESTS]))
        except NoAnswer:
            return
        copies.remove(unknown)


async def serve_guests(settings: GuestDataSettings, source: Source, stop: asyncio.Event) -> None:
    """The data source, once its address is there."""
    sock = await listener.bound("data source", settings.seed_host, settings.seed_port)
    host, port = sock.getsockname()[:2]
    log.info("data source listens", host=host, port=port)
    await listener.serve(source, sock, stop, settings.http_limits)
