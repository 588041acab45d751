"""How a process reads its settings, once, at its start."""

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import SettingsError

from runtime.settings.common import Common
from runtime.text.explained import explained
from runtime.text.masking import masked

S = TypeVar("S", bound=Common)

#: Ends of names of settings whose value is not shown.
SECRET = ("password", "dsn", "token", "nats_url")


def read(kind: type[S], given: Mapping[str, Any] | None = None) -> S:
    """Read the settings from the environment; values `given` by name take precedence.

    If any value is wrong, it prints all wrong ones and exits with status 2.
    """
    try:
        return kind(**(given or {}))
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            name = "NEBULA_" + "_".join(str(part) for part in problem["loc"]).upper()
            secret = name.lower().endswith(SECRET)
            got = "" if secret else f" (got {masked(repr(problem.get('input')))})"
            sys.stderr.write(f"nebula: {name}: {explained(problem)}{got}\n")
        raise SystemExit(2) from None
    except SettingsError as error:  # a setting that must be JSON is not
        sys.stderr.write(f"nebula: {error}\n")
        raise SystemExit(2) from None
