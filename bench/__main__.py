"""`python -m bench NAME [--json]`: run one benchmark, or all.

Each reports ratios to a floor that was measured in the same run, since machines are noisy. `--json` prints one JSON
object on the last line.
"""

import argparse
import asyncio
import importlib
import json
import signal
import sys
from typing import Any

from bench.homes import remove_leftovers

NAMES = ("append", "replay", "load", "commands", "reports", "boot", "burst", "auth", "console")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all"])
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    chosen = parser.parse_args()
    names = NAMES if chosen.name == "all" else (chosen.name,)
    results: dict[str, dict[str, Any]] = {}
    remove_leftovers()
    for name in names:
        try:
            results[name] = asyncio.run(measure(name))
        except (asyncio.CancelledError, KeyboardInterrupt) as end:
            number = signal.SIGINT if isinstance(end, KeyboardInterrupt) else signal.SIGTERM
            return 128 + number
        print(f"{name}:")
        for key, value in results[name].items():
            print(f"  {key:<28} {value}")
    if chosen.json:
        print(json.dumps(results if chosen.name == "all" else results[chosen.name]))
    return 0


async def measure(name: str) -> dict[str, Any]:
    """Run one benchmark. SIGTERM cancels it, as Ctrl-C does: it stops and removes what it has started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    found: dict[str, Any] = await importlib.import_module(f"bench.{name}").measure()
    return found


if __name__ == "__main__":
    sys.exit(main())
