"""Every figure of a large cloud, at the given number of VMs and at a tenth of it.

`growth` has, for each figure, the value at all VMs divided by that at a tenth: 10 is linear for a duration or a size, 1
is constant.
"""

import argparse
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from bench.scale import handlers, lists, models, rest, verify

Figures = Mapping[str, float]
Measure = Callable[[int, Path | None], Awaitable[Figures]]
ROWS: dict[str, Measure] = {
    "verify": verify.measure,
    "models": models.measure,
    "lists": lists.measure,
    "handlers": handlers.measure,
    "rest": rest.measure,
}
"""Each measures on the log of a cloud with so many VMs, which is kept in a folder (None: the default)."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vms", type=int, default=100_000, help="number of VMs (100000)")
    parser.add_argument("--rows", default=",".join(ROWS), help="rows to measure, separated by commas (all)")
    parser.add_argument("--home", type=Path, help="folder in which the logs are kept (~/.cache/nebula-bench)")


async def measure(
    vms: int = 100_000, rows: str | None = None, home: Path | None = None
) -> dict[str, int | dict[str, Any]]:
    names = rows.split(",") if rows else list(ROWS)
    unknown = set(names) - set(ROWS)
    if unknown:
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    small: dict[str, Figures] = {}
    large: dict[str, Figures] = {}
    for name in names:
        small[name] = await ROWS[name](max(1, vms // 10), home)
        large[name] = await ROWS[name](vms, home)
    grown = {name: growth(small[name], large[name]) for name in names}
    return {"vms": vms, "at_all": large, "at_a_tenth": small, "growth": grown}


def growth(small: Figures, large: Figures) -> dict[str, float]:
    """The ratios of the figures that both have."""
    return {name: round(large[name] / value, 2) for name, value in small.items() if value and name in large}
