"""The process of the role projections: the runner, and the answers to guest-data."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from domain.contract import RoleProcess, RoleStatus
from eventstore.log.keyring import Keyring
from eventstore.vault.vault import Vault
from projections import database
from projections.elsewhere import Elsewhere
from projections.guest_answers import GuestAnswers
from projections.past import build
from projections.past.keeper import Keeper
from projections.position import Position
from projections.runner import Runner
from runtime import logs, subjects
from runtime.bus import bus
from runtime.bus.refusal_records import RefusalRecords
from runtime.bus.status import publish_status
from runtime.files.unusable import sentence, unusable
from runtime.process import this
from runtime.settings import ProjectionsSettings
from runtime.tasks.essential import Essential, until_stopped
from runtime.tasks.patience import CannotRun, patiently
from runtime.tasks.stopping import on_signals
from runtime.text.masking import masked
from runtime.version import VERSION

log = logs.get(__name__)


async def run(settings: ProjectionsSettings) -> None:
    """Update the read models and answer guest-data until SIGTERM or SIGINT. Raises errors that retries do not solve."""
    stop = asyncio.Event()
    on_signals(stop)
    await until_stopped(stop, keep(settings))
    log.info("projections stopped")


async def keep(settings: ProjectionsSettings) -> None:
    """Run the runner and the answers until cancelled or one of them fails."""
    nc = await bus.connect(settings, "projections")
    pool = database.pool(settings.postgres_dsn, "guest-answers", size=4)
    path, keys = settings.master_key_path, Keyring(settings.event_keys_path)

    async def opened() -> Vault:
        try:
            return Vault.of(nc, path, creates=False)
        except OSError as error:
            if unusable(error) and not missing(path):
                raise CannotRun(sentence(error)) from error
            raise

    try:
        await pool.open()
        # Handlers make the file if this process may only read its folder. A full disk may get free space.
        vault = await patiently(f"the master key {path}", opened, (OSError,))
        position = Position()
        runner = Runner(nc, settings.postgres_dsn, vault, position, event_keys=keys)
        past = Keeper(nc, settings.postgres_dsn, runner, keys, build.in_a_process)
        records = RefusalRecords[Elsewhere](nc, subjects.refusal("elsewhere"))
        answers = GuestAnswers(nc, pool, vault, position, records)
        process, began = RoleProcess.model_validate(this(), from_attributes=True), datetime.now(UTC)

        def status_message(ends: bool) -> bytes:
            return of_runner(runner, past, process, began, ends).model_dump_json().encode()

        async with Essential() as essential:
            essential.start("bus", nc.until_ended())
            essential.start("runner", runner.run())
            essential.start("past", past.run())
            essential.start(
                "status", publish_status(nc, subjects.role_status("projections", process.id), status_message)
            )
            essential.start("guest answers", answers.run())
            essential.start("refusals", records.run())
            await essential.for_ever()
    finally:
        await pool.close()
        await nc.close()


def of_runner(runner: Runner, past: Keeper, process: RoleProcess, began: datetime, ends: bool) -> RoleStatus:
    """The status that this process publishes."""
    return RoleStatus(
        role="projections",
        process=process,
        began=began,
        version=VERSION,
        ends=ends,
        position=runner.position.value,
        last_success=runner.last_success,
        last_error=masked(runner.last_error) if runner.last_error is not None else None,
        failing_since=runner.failing_since,
        past=past.status(),
    )


def missing(path: Path) -> bool:
    """Whether the file does not exist yet. False if this process may not look."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
