"""Run one role's process: for `nebula gateway` and the other roles, and for `nebula up`.

`python -m cli.local.role NAME [PID_FILE]` does the same without loading the rest of the command line.
"""

import gc
import importlib
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.settings import Common

#: Each role's module, whose `run` takes the settings of the class beside it.
ROLES = {
    "gateway": ("gateway.main", "GatewaySettings"),
    "handlers": ("handlers.main", "HandlersSettings"),
    "projections": ("projections.main", "ProjectionsSettings"),
    "guest-data": ("projections.guest_data.main", "GuestDataSettings"),
    "node": ("node_daemon.main", "NodeSettings"),
}

#: Modules that libraries load if they are there, and that no role uses: they take 5 to 7 MiB of each process. `rich`:
#: structlog, for tracebacks; `watchfiles`: uvicorn, for its reloader; `httpx._main`: httpx's command line.
UNUSED = ("rich", "watchfiles", "httpx._main")
#: The same for single roles: faststream loads uvicorn.
UNUSED_BY = {"handlers": ("uvicorn",), "projections": ("uvicorn",), "node": ("uvicorn",)}

COMMAND_LINE = "uvicorn.main"

#: The command that starts a role, and the module of the process that forks roles.
COMMAND = (sys.executable, "-m", "cli.local.role")
PRELOADED = "cli.local.preloaded"

#: The role `node` with simulated nodes.
SIMULATION = "simulation"
PROGRAMS = {
    **ROLES,
    SIMULATION: ("node_daemon.simulation.fleet", "SimulationSettings"),
    "authority": ("cli.local.bus_authority", "AuthoritySettings"),
}


def serve(role: str, pid_file: Path | None = None) -> None:
    """Run until stopped. The modules of a role are imported only here."""
    gc.disable()  # imports leave nothing to collect, and looking for it costs a tenth of a start
    spare(role)
    from runtime import settings
    from runtime.files import private

    private.begin()
    _, settings_class = PROGRAMS[role]
    run(role, settings.read(getattr(settings, settings_class)), pid_file)


def spare(role: str = "") -> None:
    """Let imports of modules that this role, or that no role uses, fail, as if they were not installed. Only for a
    process of its own.
    """
    for name in (*UNUSED, *UNUSED_BY.get(role, ())):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    sys.modules.setdefault(COMMAND_LINE, without_command_line())
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would look through all installed packages


def without_command_line() -> ModuleType:
    """Stands for uvicorn's command line, which uvicorn loads: it takes 1.5 MiB of each process that serves HTTP."""

    def found(name: str) -> Any:
        if name == "Server":
            return importlib.import_module("uvicorn.server").Server
        if name in ("main", "run"):
            return None
        raise AttributeError(name)

    module = ModuleType(COMMAND_LINE)
    module.__getattr__ = found  # type: ignore[method-assign]
    return module


def run(role: str, own: "Common", pid_file: Path | None = None) -> None:
    """Run it with these settings, with an event loop and a garbage collector for a long life.

    If it cannot begin because the disk is full, it waits until there is room. If it cannot use its files, it ends
    with status 2.
    """
    import uvloop

    from runtime import logs
    from runtime.files import files
    from runtime.files.unusable import sentence, unusable
    from runtime.images.disk_room import is_full
    from runtime.tasks import essential, patience, stopping

    logs.configure(role, own.log_level, own.log_format)
    program = importlib.import_module(PROGRAMS[role][0]).run
    gc.freeze()  # objects from imports live for ever: the collector need not look at them
    gc.set_threshold(10_000, 20, 20)  # what is in flight is looked at more rarely: a tenth of a command
    gc.enable()
    try:
        for pause in patience.RETRY.pauses():
            try:
                if pid_file is not None:
                    files.put(pid_file, f"{os.getpid()}\n", durable=False)
                uvloop.run(stopping.to_its_end(program(own)))
                return
            except OSError as error:
                if unusable(error):
                    raise patience.CannotRun(f"{sentence(error)} (NEBULA_HOME is {own.home})") from error
                if not is_full(error):
                    raise
                log = logs.get(__name__)
                log.error("the disk is full; make room, it goes on by itself", file=error.filename, retry_in=pause)
                time.sleep(pause)
    except patience.CannotRun as error:
        logs.get(__name__).error("the role cannot run", error=patience.one_line(error))
        raise SystemExit(2) from None
    except essential.TaskEnded:
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        logs.get(__name__).error("role failed", error=repr(error), exc_info=error)
        raise SystemExit(1) from None


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
