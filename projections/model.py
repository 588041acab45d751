"""What a read model is: tables that a replay of the log can fill, and the version of their shape and meaning."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class ReadModel:
    """One read model.

    `version` rises whenever a table or the meaning of a row changes: a replay then makes it anew beside the live one.
    Whoever removes a read model raises the version of another one, so that this counts as newer.
    """

    name: str
    version: int
    ddl: str
    tables: tuple[str, ...]
    #: whether the gateway may read it
    served: bool = True


class Standing(Enum):
    """What a stored set of read models is to this program."""

    MISSING = auto()
    OLDER = auto()
    SAME = auto()
    NEWER = auto()


def versions(models: Iterable[ReadModel]) -> dict[str, int]:
    return {model.name: model.version for model in models}


def standing(found: Mapping[str, int] | None, mine: Mapping[str, int]) -> Standing:
    """How stored versions compare with those of this program. Newer ones are never replaced by older ones."""
    if found is None:
        return Standing.MISSING
    if any(version > mine.get(name, version) for name, version in found.items()):
        return Standing.NEWER
    if any(version > found.get(name, 0) for name, version in mine.items()):
        return Standing.OLDER
    return Standing.SAME if found.keys() == mine.keys() else Standing.NEWER
