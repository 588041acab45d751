"""Something small about each VM, in a file of its own, which a daemon that starts again finds."""

import contextlib
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from runtime.files.files import put

M = TypeVar("M", bound=BaseModel)


class Notes(Generic[M]):
    """Notes of one kind. One that cannot be read counts as none; one that cannot be written (full disk) is not kept."""

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
            put(self._path(vm), note.model_dump_json(), durable=False)  # one that is lost counts as none

    def forget(self, vm: str) -> None:
        with contextlib.suppress(OSError):
            self._path(vm).unlink(missing_ok=True)

    def _path(self, vm: str) -> Path:
        return self._folder / f"{vm}.json"
