"""The folder of a credential of the bus that a host got when it joined: its paths, and how it is read.

    bus.creds     the JWT and the seed of its key, as NATS tools write them
    ca.pem        the authority of the bus

A third file says where the bus is. It is written last, so the others are there if it is.
"""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from runtime.tasks.patience import CannotRun

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class CredentialFolder:
    """The paths in a folder."""

    folder: Path

    @property
    def creds(self) -> Path:
        return self.folder / "bus.creds"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    def bus(self, given: Set[str], nats_url: str, *, encrypted: bool) -> dict[str, object]:
        """The settings of the bus, except those that the environment has `given`."""
        found: dict[str, object] = {"nats_url": nats_url}
        if encrypted:
            found["nats_ca"] = self.authority
        return {name: value for name, value in found.items() if name not in given}


def read(file: Path, kind: type[T]) -> T | None:
    """What a file of a join says; None if this host has not joined. Raises CannotRun if the file is damaged."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValidationError, OSError) as error:
        raise CannotRun(f"{file} cannot be read; join again (nebula node token, nebula node join)") from error
