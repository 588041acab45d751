"""A small JSON file for each VM. A daemon reads it again after a restart."""

import contextlib
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from runtime.files.files import put

M = TypeVar("M", bound=BaseModel)


class Notes(Generic[M]):
    """The notes of one type, in one folder. An unreadable note counts as missing. A failed write (full disk) is
    ignored.
    """

    def __init__(self, folder: Path, kind: type[M]) -> None:
        self._folder = folder
        self._kind = kind

    def read(self, vm: str) -> M | None:
        with contextlib.suppress(OSError, ValidationError):
            return self._kind.model_validate_json(self._path(vm).read_bytes())
        return None

    def write(self, vm: str, note: M) -> None:
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            put(self._path(vm), note.model_dump_json(), durable=False)  # a lost note counts as missing

    def forget(self, vm: str) -> None:
        with contextlib.suppress(OSError):
            self._path(vm).unlink(missing_ok=True)

    def _path(self, vm: str) -> Path:
        return self._folder / f"{vm}.json"
