"""`python -m cli.local.preloaded`: imports what the roles import, and is forked for each of them (`forks.py`)."""

import gc
import importlib
from contextlib import suppress
from pathlib import Path

from cli.local.role import PROGRAMS, serve, spare

#: What libraries import when it is needed first.
LATER = ("uvloop", "uvicorn.lifespan.off", "asyncio.subprocess", "encodings.idna")


def import_all() -> None:
    """Import the modules of all roles. A role whose modules cannot be imported fails by itself."""
    gc.disable()
    spare()
    for module in (*(module for module, _ in PROGRAMS.values()), *LATER):
        with suppress(Exception):
            importlib.import_module(module)
    from runtime import settings

    for _, name in PROGRAMS.values():  # from the defaults: pydantic remembers much that it finds out about types
        with suppress(Exception):
            getattr(settings, name)()
    with suppress(Exception):
        from gateway.table.reads import described

        described()  # 0.3 s of CPU time of each start of a gateway, if that does it


def main() -> None:
    import_all()
    from runtime.local.fork_server import next_process

    _, _, _, role, *rest = next_process().arguments
    serve(role, Path(rest[0]) if rest else None)


if __name__ == "__main__":
    main()
