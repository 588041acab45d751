"""`python -m bench NAME [--json]`: run one benchmark, or all.

Each reports ratios to a floor that was measured in the same run, since machines are noisy. `--json` prints one JSON
object on the last line.
"""

import argparse
import asyncio
import importlib
import json
import sys
from typing import Any

NAMES = ("append", "replay", "load", "commands", "reports", "boot", "burst")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all"])
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    chosen = parser.parse_args()
    names = NAMES if chosen.name == "all" else (chosen.name,)
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        results[name] = asyncio.run(importlib.import_module(f"bench.{name}").measure())
        print(f"{name}:")
        for key, value in results[name].items():
            print(f"  {key:<28} {value}")
    if chosen.json:
        print(json.dumps(results if chosen.name == "all" else results[chosen.name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
