"""Every figure of a large cloud, and whether it reaches its goal.

The rows `verify`, `models`, `lists`, `handlers` and `rest` are measured on a log of all VMs and of a tenth of them.
`growth` has, for each of their figures, the value at all VMs divided by that at a tenth: 10 is linear for a duration or
a size, 1 is constant. The other rows are benchmarks of their own, in a new log each, with their default sizes:
`commands`, `commands-2` (with two gateways and two handlers), `stages`, `bursts`, `run`, `rounds`.

Each row is printed as soon as it is measured. If one fails, the others are measured, and `failed` says why. `goals`
says of each goal whether it was reached, not reached, or not measured.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.scale import handlers, lists, models, rest, verify
from bench.scale.goals import outcomes
from runtime.tasks.tasks import heed_cancellation

Figures = Mapping[str, Any]
Measure = Callable[[int, Path | None], Awaitable[Figures]]
ROWS: dict[str, Measure] = {
    "verify": verify.measure,
    "models": models.measure,
    "lists": lists.measure,
    "handlers": handlers.measure,
    "rest": rest.measure,
}
"""Each measures on the log of a cloud with so many VMs, which is kept in a folder (None: the default)."""
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "commands": ("commands", {}),
    "commands-2": ("commands", {"gateways": 2, "handlers": 2}),
    "stages": ("stages", {"count": 300}),
    "bursts": ("bursts", {}),
    "run": ("run", {}),
    "rounds": ("rounds", {}),
}
"""Benchmarks of their own, with their options."""


def arguments(parser: argparse.ArgumentParser) -> None:
    names = ",".join((*ROWS, *PARTS))
    parser.add_argument("--vms", type=int, default=100_000, help="number of VMs (100000)")
    parser.add_argument("--rows", default=names, help=f"rows to measure, separated by commas (all: {names})")
    parser.add_argument("--home", type=Path, help="folder in which the logs are kept (~/.cache/nebula-bench)")


async def measure(vms: int = 100_000, rows: str | None = None, home: Path | None = None) -> dict[str, Any]:
    names = rows.split(",") if rows else [*ROWS, *PARTS]
    unknown = set(names) - ROWS.keys() - PARTS.keys()
    if unknown:
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join((*ROWS, *PARTS))}")
    small: dict[str, Figures] = {}
    large: dict[str, Figures] = {}
    failed: dict[str, str] = {}
    for name in names:
        heed_cancellation()
        try:
            if name in ROWS:
                small[name] = await reported(f"{name} at a tenth", partial(ROWS[name], max(1, vms // 10), home))
                large[name] = await reported(name, partial(ROWS[name], vms, home))
            else:
                large[name] = await reported(name, partial(part, name))
        except Exception as error:
            failed[name] = repr(error)[:1000]
            say(f"{name}: failed: {failed[name]}")
    found = outcomes(large)
    for each in found:
        say(f"{each.word:<13} {each.goal.text}: {each.value} (goal {each.shown()['goal']})")
    return {
        "vms": vms,
        "at_all": large,
        "at_a_tenth": small,
        "growth": {name: growth(small[name], large[name]) for name in small if name in large},
        "failed": failed,
        "goals": {each.goal.text: each.shown() for each in found},
    }


async def part(name: str) -> Figures:
    """Run a benchmark of its own. Raises ModuleNotFoundError if there is none of this name."""
    module, options = PARTS[name]
    found: Figures = await importlib.import_module(f"bench.{module}").measure(**options)
    return found


async def reported(title: str, work: Callable[[], Awaitable[Figures]]) -> Figures:
    """Measure, and print the figures."""
    say(f"{title} …")
    started = time.monotonic()
    found = await work()
    say(f"{title}: {dict(found)} ({time.monotonic() - started:.0f} s)")
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def growth(small: Figures, large: Figures) -> dict[str, float]:
    """The ratios of the figures that both have."""
    return {name: round(large[name] / value, 2) for name, value in small.items() if value and name in large}
