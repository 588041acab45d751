"""Which worker runs which file: each takes the next one, in the order of the collection, with three exceptions.

Files that share what is expensive to start are run by one worker, one after the other. Else files of the folder where
a worker is come first, since they may share something too. And a worker asks for its next file before it begins the
last test of a file, since it needs to know what it may take down afterwards: where that test may take long, the next
file is a short one, so that no long file waits while other workers have nothing to do.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

#: Folders of files that share what is expensive to start.
TOGETHER = ("tests/console",)


class Files:
    """The files that no worker has. `tests`: the numbers of the tests of each; `long`: the files that take long."""

    def __init__(self, tests: Mapping[str, Sequence[int]], long: Collection[str]) -> None:
        self._waiting = {file: list(numbers) for file, numbers in tests.items()}
        self._long = long
        #: the worker of each folder whose files stay together
        self._owners: dict[str, int] = {}
        self._newest: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, worker: int) -> list[int]:
        """The next tests for a worker, which has one left of what it took before; empty if there are none."""
        if not self._waiting:
            return []
        file = next(self._candidates(worker))
        self._newest[worker] = file
        if folder_of(file) in TOGETHER:
            self._owners.setdefault(folder_of(file), worker)
        return self._waiting.pop(file)

    def put_back(self, file: str, numbers: Sequence[int]) -> None:
        """Tests that a worker leaves, which has ended: others run them, before all others."""
        self._waiting = {file: [*numbers, *self._waiting.pop(file, [])]} | self._waiting

    def ended(self, worker: int) -> None:
        self._owners = {folder: owner for folder, owner in self._owners.items() if owner != worker}

    def _candidates(self, worker: int) -> Iterator[str]:
        """The best for this worker first; some of them again."""
        newest = self._newest.get(worker)
        owners = {file: self._owners.get(folder_of(file)) for file in self._waiting}
        yield from (file for file, owner in owners.items() if owner == worker)
        free = [file for file, owner in owners.items() if owner is None]
        short = [file for file in free if file not in self._long]
        if newest not in self._long:
            yield from (file for file in free if file in self._long)
        if newest is not None:
            yield from (file for file in short if folder_of(file) == folder_of(newest))
        yield from short
        yield from free
        yield from self._waiting


def folder_of(file: str) -> str:
    return file.rpartition("/")[0]
