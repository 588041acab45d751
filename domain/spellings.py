"""Inputs that people write in several ways, and their canonical form: digests, architectures, UUIDs, words."""

import re
from collections.abc import Callable
from typing import Annotated, overload

from pydantic import BeforeValidator, StringConstraints, WithJsonSchema

from domain.contract import Architecture, Sha256, Sha512
from domain.patterns import UUID

#: Number of hexadecimal digits of each kind of digest.
DIGITS = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}
_ARCHITECTURES = {"x86-64": "x86_64", "x64": "x86_64", "amd64": "x86_64", "arm64": "aarch64"}


@overload
def lower(given: str) -> str: ...
@overload
def lower(given: object) -> object: ...
def lower(given: object) -> object:
    """The input in lower case, if it is text."""
    return given.lower() if isinstance(given, str) else given


@overload
def architecture(given: str) -> str: ...
@overload
def architecture(given: object) -> object: ...
def architecture(given: object) -> object:
    """The canonical name of an architecture: `x86_64` for amd64, `aarch64` for arm64."""
    if not isinstance(given, str):
        return given
    return _ARCHITECTURES.get(given.lower(), given.lower())


def digest(kind: str) -> Callable[[object], object]:
    """A validator that also accepts upper case, and the kind as a prefix (`sha256:…`). It raises ValueError."""
    digits = DIGITS[kind]

    def canonical(given: object) -> object:
        if not isinstance(given, str):
            return given
        before, colon, after = given.lower().rpartition(":")
        if colon and before != kind:
            raise ValueError(
                f"has {before[:20]!r} before the colon: give the {kind} of the file, with or without {kind}:"
            )
        if wrong := re.search(r"[^0-9a-f]", after):
            raise ValueError(f"has {wrong[0]!r} in it, which is not a hexadecimal digit")
        if len(after) != digits:
            other = next((name for name, number in DIGITS.items() if number == len(after)), None)
            hint = f", as many as a {other} has" if other else ""
            raise ValueError(f"has {len(after)} digits{hint}: a {kind} has {digits}")
        return after

    return canonical


def _schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


GivenSha256 = Annotated[Sha256, BeforeValidator(digest("sha256")), _schema("^([sS][hH][aA]256:)?[0-9A-Fa-f]{64}$")]
GivenSha512 = Annotated[Sha512, BeforeValidator(digest("sha512")), _schema("^([sS][hH][aA]512:)?[0-9A-Fa-f]{128}$")]
GivenArchitecture = Annotated[
    Architecture,
    BeforeValidator(architecture),
    _schema("^([xX]86[_-]64|[xX]64|[aA][mM][dD]64|[aA][aA][rR][cC][hH]64|[aA][rR][mM]64)$"),
]
UUID_PATTERN = f"^{UUID.replace('a-f', 'A-Fa-f')}$"
GivenUuid = Annotated[
    str,
    StringConstraints(pattern=f"^{UUID}$"),
    BeforeValidator(lower),
    _schema(UUID_PATTERN),
]
