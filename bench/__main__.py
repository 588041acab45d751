"""`python -m bench NAME [--json] [OPTION]...`: run one benchmark, or all but the large ones.

Each reports ratios to a floor that was measured in the same run, since machines are noisy. `--json` prints one JSON
object on the last line. `python -m bench NAME --help` shows the options of a benchmark: its function `arguments` adds
them to a parser, and its `measure` gets their values by name.
"""

import argparse
import asyncio
import importlib
import json
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from bench.homes import remove_leftovers

NAMES = (
    "append",
    "replay",
    "load",
    "commands",
    "costs",
    "reports",
    "boot",
    "stages",
    "burst",
    "auth",
    "console",
    "several",
    "bursts",
    "watchers",
    "usage",
)
LARGE = ("scale", "rounds", "fleet", "run", "page", "past", "terminals")
"""Those that take many minutes: they are run by their names only."""
ELSEWHERE = {"scale": "bench.scale.rows"}
"""The modules of benchmarks that are not `bench.NAME`."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, add_help=False)
    parser.add_argument("name", nargs="?", choices=[*NAMES, *LARGE, "all"])
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--help", "-h", action="store_true")
    chosen, rest = parser.parse_known_args()
    if chosen.name is None:
        parser.print_help()
        return 0 if chosen.help else 2
    names = NAMES if chosen.name == "all" else (chosen.name,)
    options = {name: options_of(name, rest if chosen.name == name else [], help_=chosen.help) for name in names}
    results: dict[str, dict[str, Any]] = {}
    remove_leftovers()
    for name in names:
        try:
            results[name] = asyncio.run(measure(name, options[name]))
        except (asyncio.CancelledError, KeyboardInterrupt) as end:
            number = signal.SIGINT if isinstance(end, KeyboardInterrupt) else signal.SIGTERM
            return 128 + number
        print(f"{name}:")
        for key, value in results[name].items():
            print(f"  {key:<28} {value}")
    if chosen.json:
        print(json.dumps(results if chosen.name == "all" else results[chosen.name]))
    return 0


def module_of(name: str) -> ModuleType:
    return importlib.import_module(ELSEWHERE.get(name, f"bench.{name}"))


def options_of(name: str, given: Sequence[str], *, help_: bool = False) -> dict[str, Any]:
    """The options of a benchmark, with their defaults. Ends the program for an unknown one, and after the help."""
    parser = argparse.ArgumentParser(prog=f"python -m bench {name}", description=module_of(name).__doc__)
    arguments = getattr(module_of(name), "arguments", None)
    if arguments is not None:
        arguments(parser)
    return vars(parser.parse_args(["--help"] if help_ else given))


async def measure(name: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run one benchmark. SIGTERM cancels it, as Ctrl-C does: it stops and removes what it has started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    found: dict[str, Any] = await module_of(name).measure(**(options or {}))
    return found


if __name__ == "__main__":
    sys.exit(main())
