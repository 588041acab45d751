"""A role in which one coroutine function is replaced by one that ends soon: it returns, or it raises an error.

`python -m tests.roles.broken ROLE SETTINGS_CLASS MODULE FUNCTION raises|returns`
"""

import importlib
import sys
from typing import Any

from cli.local.role import run
from runtime import settings


def main(role: str, settings_class: str, module: str, path: str, how: str) -> None:
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)

    async def broken(*_: Any, **__: Any) -> None:
        if how == "raises":
            raise LookupError("a bug")

    assert hasattr(owner, name), f"{path} has another name"
    setattr(owner, name, broken)
    run(role, settings.read(getattr(settings, settings_class)))


if __name__ == "__main__":
    main(*sys.argv[1:])
